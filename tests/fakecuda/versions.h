/* Which call came with which version of the driver. */
#ifndef ADCG_TESTS_FAKECUDA_VERSIONS_H_
#define ADCG_TESTS_FAKECUDA_VERSIONS_H_

int fc_version_of(const char *name); /* of the exact symbol */

#endif
