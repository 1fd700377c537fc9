/* What a program that uses the installed library needs: the public header, and what pkg-config
 * says. */
#include <matquant/version.h>
#include <stdio.h>
#include <string.h>

int main(void) {
    printf("%s\n", mq_version());
    return strcmp(mq_version(), MQ_VERSION) != 0;
}
