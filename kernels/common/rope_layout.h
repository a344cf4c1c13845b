/* How the layouts of adcg.rope pair the elements of a head. */
#ifndef ADCGK_ROPE_LAYOUT_H_
#define ADCGK_ROPE_LAYOUT_H_

/* Pairs are halves, neighbours, or neighbours that go to the two halves. */
typedef enum adcgk_rope_layout { ADCGK_ROPE_NEOX, ADCGK_ROPE_GPTJ, ADCGK_ROPE_INTERLEAVED } adcgk_rope_layout;

#endif /* ADCGK_ROPE_LAYOUT_H_ */
