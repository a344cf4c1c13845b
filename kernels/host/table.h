/* The table of the instruction set that was compiled before: TABLE is adcgk_kernels_<isa>, ISA its name. */
const adcgk_kernels TABLE = {
    .name = ISA,
    .product = product,
    .attend = attend,
    .divide = divide,
    .convert = convert,
    .rms_norm = rms_norm,
    .add = add,
    .silu_mul = silu_mul,
    .angles = angles,
    .rotate = rotate,
    .argmax = argmax,
    .router_scores = router_scores,
    .activate = activate,
    .accumulate = accumulate,
};
