/* Numbers in files are spelled with a point, whatever the locale of the program around the library
 * is: between the two calls this thread has the locale "C". */
#ifndef MQ_BASE_PLAIN_LOCALE_H
#define MQ_BASE_PLAIN_LOCALE_H

#include <locale.h>

typedef struct mq_plain_locale {
    locale_t plain, before;
} mq_plain_locale;

static inline mq_plain_locale mq_plain_locale_begin(void) {
    const locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    return (mq_plain_locale){plain, plain != (locale_t)0 ? uselocale(plain) : (locale_t)0};
}

static inline void mq_plain_locale_end(mq_plain_locale locale) {
    if (locale.plain != (locale_t)0) {
        uselocale(locale.before);
        freelocale(locale.plain);
    }
}

#endif
