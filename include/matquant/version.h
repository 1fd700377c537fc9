/* The library's version; mq_version() is what the linked library says of itself. */
#ifndef MATQUANT_VERSION_H
#define MATQUANT_VERSION_H

#ifdef __cplusplus
extern "C" {
#endif

#define MQ_VERSION "0.1.0"

const char *mq_version(void);

#ifdef __cplusplus
}
#endif
#endif
