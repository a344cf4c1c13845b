package piecewise

// svgStyle has each colour twice, for light pages and dark ones. Hues are those of Okabe and Ito, which people of every
// kind of colour vision tell apart; neighbours differ in lightness too.
const svgStyle = `
text{font:12px ui-sans-serif,system-ui,"Segoe UI",Helvetica,Arial,sans-serif;fill:#1f2328}
.head{font-size:17px;font-weight:600}.sub,.key,.tick,.ops text{fill:#59636e}.key,.mark{font-size:11.5px}.tick{font-size:10.5px}
.end{text-anchor:end}.mid{text-anchor:middle}.strong{font-weight:600}
.ops text,.labels text{font:9.5px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.ops text{text-anchor:end}.labels text{text-anchor:middle}.labels .size{fill-opacity:.7}.labels,.marks,.grid{pointer-events:none}
.page{fill:#fff}.grid path{stroke:#1f2328;stroke-opacity:.12}
.columns .token{fill:#eaf2fa}.columns .seq{fill:#d3e0dc}.columns .dynamic{fill:#fdf0cf}.columns .views{fill:#f1f1f1}
.ribbon .token{fill:#7fb2dc}.ribbon .seq{fill:#2c6e63}.ribbon .dynamic{fill:#eab02e}.ribbon .views{fill:#bdbdbd}
.blocks rect:hover{stroke-width:3}
.a{fill:#a9d5f2;stroke:#0072b2}.d{fill:#f5c45e;stroke:#a66b00}.w{fill:#e9bdd5;stroke:#a8477f}
.i{fill:#7fd0b5;stroke:#00704f}.o{fill:#f0a27a;stroke:#b04600}
.rest path{fill:none}.rest .a{stroke:#a9d5f2}.rest .d{stroke:#f5c45e}.rest .w{stroke:#e9bdd5}.rest .i{stroke:#7fd0b5}.rest .o{stroke:#f0a27a}
.live rect{fill:#c3ccd6}.live rect:hover{fill:#8c959f}
.arena,.bound,.peak{fill:none;stroke:#1f2328}.arena{stroke-width:1.5}.bound{stroke:#1a7f5a;stroke-width:1.5;stroke-dasharray:7 4}
.peak{stroke:#c2185b;stroke-width:1.5;stroke-dasharray:3 3}.peaked,.ops .peaked{fill:#c2185b;font-weight:600}
@media(prefers-color-scheme:dark){
text{fill:#e6edf3}.sub,.key,.tick,.ops text{fill:#9da7b1}.page{fill:#0d1117}.grid path{stroke:#e6edf3}
.columns .token{fill:#131d2a}.columns .seq{fill:#1d3a35}.columns .dynamic{fill:#322810}.columns .views{fill:#1c1f24}
.ribbon .token{fill:#4d87b8}.ribbon .seq{fill:#7cc4b5}.ribbon .dynamic{fill:#c9941a}.ribbon .views{fill:#6e7681}
.a{fill:#1d4f77;stroke:#6cbcf0}.d{fill:#76540b;stroke:#f0b93a}.w{fill:#6b3356;stroke:#e39cc6}
.i{fill:#0e6b50;stroke:#4fd0a6}.o{fill:#853d14;stroke:#f59a68}
.rest .a{stroke:#1d4f77}.rest .d{stroke:#76540b}.rest .w{stroke:#6b3356}.rest .i{stroke:#0e6b50}.rest .o{stroke:#853d14}
.live rect{fill:#3d444d}.live rect:hover{fill:#7d8590}
.arena{stroke:#e6edf3}.bound{stroke:#56d3a4}.peak{stroke:#ff7eb0}.peaked,.ops .peaked{fill:#ff7eb0}
}`
