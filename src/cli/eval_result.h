/* What matquant eval prints. */
#ifndef MATQUANT_CLI_EVAL_RESULT_H
#define MATQUANT_CLI_EVAL_RESULT_H

#include "matquant/eval.h"

void cli_print_eval_table(const mq_eval_result *result, const mq_eval_options *options);
mq_status cli_print_eval_json(const mq_eval_result *result, const mq_eval_options *options);

#endif
