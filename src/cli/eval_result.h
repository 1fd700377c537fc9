/* What matquant eval prints. */
#ifndef MATQUANT_CLI_EVAL_RESULT_H
#define MATQUANT_CLI_EVAL_RESULT_H

#include "matquant/eval.h"

/* results [count]: those of the widths, in their order; of one, which may be no width at all (0),
 * or of several, which were measured alike. As a table of fields; several have a row each. */
void cli_print_eval_table(const mq_eval_result *results, size_t count,
                          const mq_eval_options *options);
/* As a JSON object; with several asked for {"results": [...]}, with such an object for each that
 * was measured. */
mq_status cli_print_eval_json(const mq_eval_result *results, size_t count, bool several,
                              const mq_eval_options *options);

#endif
