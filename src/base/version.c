#include "matquant/version.h"

const char *mq_version(void) { return MQ_VERSION; }
