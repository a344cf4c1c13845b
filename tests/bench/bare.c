#include "bare.h"

BARE(, library)
