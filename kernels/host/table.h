/* The table of the instruction set that was compiled before: TABLE is adcgk_kernels_<isa>, ISA its name. */
const adcgk_kernels TABLE = {
    .name = ISA,
    .product = product,
    .product_along = product_along,
    .attend = attend,
    .divide = divide,
    .convert = convert,
    .from_fp8 = from_fp8,
    .to_fp8 = to_fp8,
    .rms_norm = rms_norm,
    .add = add,
    .silu_mul = silu_mul,
    .angles = angles,
    .rotate = rotate,
    .argmax = argmax,
};
