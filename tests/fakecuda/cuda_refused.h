/* Every call that the stand-in exports and refuses with 801, as FAKECUDA_REFUSED(what it is about, name, parameters...); read with that
 * macro defined. Programs that were linked against the whole driver (gorgonia.org/cu is one) start, and learn why when they call one
 * (fakecuda_reason). No include guard, as in cuda_calls.h. */
FAKECUDA_REFUSED("arrays", cuArrayCreate_v2, CUarray *array, const void *descriptor)
FAKECUDA_REFUSED("arrays", cuArrayGetDescriptor_v2, void *descriptor, CUarray array)
FAKECUDA_REFUSED("arrays", cuArray3DCreate_v2, CUarray *array, const void *descriptor)
FAKECUDA_REFUSED("arrays", cuArray3DGetDescriptor_v2, void *descriptor, CUarray array)
FAKECUDA_REFUSED("arrays", cuArrayDestroy, CUarray array)
FAKECUDA_REFUSED("arrays", cuMemcpyAtoA_v2, CUarray dst, size_t dst_offset, CUarray src, size_t src_offset, size_t bytes)
FAKECUDA_REFUSED("arrays", cuMemcpyAtoD_v2, CUdeviceptr dst, CUarray src, size_t offset, size_t bytes)
FAKECUDA_REFUSED("arrays", cuMemcpyDtoA_v2, CUarray dst, size_t offset, CUdeviceptr src, size_t bytes)
FAKECUDA_REFUSED("arrays", cuMemcpyAtoH_v2, void *dst, CUarray src, size_t offset, size_t bytes)
FAKECUDA_REFUSED("arrays", cuMemcpyHtoA_v2, CUarray dst, size_t offset, const void *src, size_t bytes)
FAKECUDA_REFUSED("arrays", cuMemcpyAtoHAsync_v2, void *dst, CUarray src, size_t offset, size_t bytes, CUstream stream)
FAKECUDA_REFUSED("arrays", cuMemcpyHtoAAsync_v2, CUarray dst, size_t offset, const void *src, size_t bytes, CUstream stream)

FAKECUDA_REFUSED("textures", cuModuleGetTexRef, CUtexref *texture, CUmodule module, const char *name)
FAKECUDA_REFUSED("textures", cuTexRefGetAddress_v2, CUdeviceptr *address, CUtexref texture)
FAKECUDA_REFUSED("textures", cuTexRefGetAddressMode, int *mode, CUtexref texture, int dim)
FAKECUDA_REFUSED("textures", cuTexRefGetArray, CUarray *array, CUtexref texture)
FAKECUDA_REFUSED("textures", cuTexRefGetBorderColor, float *color, CUtexref texture)
FAKECUDA_REFUSED("textures", cuTexRefGetFilterMode, int *mode, CUtexref texture)
FAKECUDA_REFUSED("textures", cuTexRefGetFlags, unsigned *flags, CUtexref texture)
FAKECUDA_REFUSED("textures", cuTexRefGetFormat, int *format, int *channels, CUtexref texture)
FAKECUDA_REFUSED("textures", cuTexRefGetMaxAnisotropy, int *most, CUtexref texture)
FAKECUDA_REFUSED("textures", cuTexRefSetAddress_v2, size_t *offset, CUtexref texture, CUdeviceptr address, size_t bytes)
FAKECUDA_REFUSED("textures", cuTexRefSetAddress2D_v3, CUtexref texture, const void *descriptor, CUdeviceptr address, size_t pitch)
FAKECUDA_REFUSED("textures", cuTexRefSetAddressMode, CUtexref texture, int dim, int mode)
FAKECUDA_REFUSED("textures", cuTexRefSetArray, CUtexref texture, CUarray array, unsigned flags)
FAKECUDA_REFUSED("textures", cuTexRefSetBorderColor, CUtexref texture, float *color)
FAKECUDA_REFUSED("textures", cuTexRefSetFilterMode, CUtexref texture, int mode)
FAKECUDA_REFUSED("textures", cuTexRefSetFlags, CUtexref texture, unsigned flags)
FAKECUDA_REFUSED("textures", cuTexRefSetFormat, CUtexref texture, int format, int channels)
FAKECUDA_REFUSED("textures", cuTexRefSetMaxAnisotropy, CUtexref texture, unsigned most)
FAKECUDA_REFUSED("textures", cuTexRefSetMipmapFilterMode, CUtexref texture, int mode)
FAKECUDA_REFUSED("textures", cuTexRefSetMipmapLevelBias, CUtexref texture, float bias)
FAKECUDA_REFUSED("textures", cuTexRefSetMipmapLevelClamp, CUtexref texture, float least, float most)
FAKECUDA_REFUSED("surfaces", cuModuleGetSurfRef, CUsurfref *surface, CUmodule module, const char *name)
FAKECUDA_REFUSED("surfaces", cuSurfRefGetArray, CUarray *array, CUsurfref surface)
FAKECUDA_REFUSED("surfaces", cuSurfRefSetArray, CUsurfref surface, CUarray array, unsigned flags)

FAKECUDA_REFUSED("managed memory", cuMemAllocManaged, CUdeviceptr *address, size_t bytes, unsigned flags)
FAKECUDA_REFUSED("managed memory", cuMemAdvise, CUdeviceptr address, size_t bytes, int advice, CUdevice device)
FAKECUDA_REFUSED("managed memory", cuMemPrefetchAsync, CUdeviceptr address, size_t bytes, CUdevice device, CUstream stream)
FAKECUDA_REFUSED("managed memory", cuStreamAttachMemAsync, CUstream stream, CUdeviceptr address, size_t bytes, unsigned flags)

FAKECUDA_REFUSED("memory operations of streams", cuStreamWaitValue32_v2, CUstream stream, CUdeviceptr address, uint32_t value,
                 unsigned flags)
FAKECUDA_REFUSED("memory operations of streams", cuStreamWriteValue32_v2, CUstream stream, CUdeviceptr address, uint32_t value,
                 unsigned flags)

FAKECUDA_REFUSED("variables of modules", cuModuleGetGlobal_v2, CUdeviceptr *address, size_t *bytes, CUmodule module, const char *name)

FAKECUDA_REFUSED("the JIT linker", cuLinkCreate_v2, unsigned count, int *options, void **values, CUlinkState *state)
FAKECUDA_REFUSED("the JIT linker", cuLinkAddData_v2, CUlinkState state, int type, void *data, size_t size, const char *name, unsigned count,
                 int *options, void **values)
FAKECUDA_REFUSED("the JIT linker", cuLinkAddFile_v2, CUlinkState state, int type, const char *path, unsigned count, int *options,
                 void **values)
FAKECUDA_REFUSED("the JIT linker", cuLinkComplete, CUlinkState state, void **cubin, size_t *size)
FAKECUDA_REFUSED("the JIT linker", cuLinkDestroy, CUlinkState state)
