/* What matquant eval prints. */
#ifndef MATQUANT_CLI_EVAL_RESULT_H
#define MATQUANT_CLI_EVAL_RESULT_H

#include "matquant/eval.h"

/* results [count]: those of the widths, in their order; or one, which may be of no width at all
 * (0). As a table of fields; several have a row each. */
void cli_print_eval_table(const mq_eval_result *results, size_t count,
                          const mq_eval_options *options);
/* As a JSON object; several as {"results": [...]}, with such an object for each. */
mq_status cli_print_eval_json(const mq_eval_result *results, size_t count,
                              const mq_eval_options *options);

#endif
