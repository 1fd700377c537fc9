#!/bin/sh
# matquant's slices beside what llama.cpp and mlx-lm make of the same model for themselves: GGUF files by llama.cpp's own
# quantization, with an importance matrix and without, and folders by mlx-lm's convert, gptq and dwq. Sizes, and perplexity of
# all by `matquant eval`: of GGUF files after their weights were multiplied out to float32.
#
#   scripts/bench-runtimes.sh --master DIR --calib FILE --text FILE [--model DIR] [--title NAME] [--work DIR]
#                             [--runs "llama-Q4_K_M mlx-4 ..."] [--permuted-master DIR] [--samples N] [--seq-len N]
#                             [--threads N] [--windows N] [--results FILE]
#
# --master is a master of --model (models/smollm2, unless it says another; --title is its name in the table).
#
# Runs: full, matquant-gguf-8 ... matquant-gguf-2, matquant-mlx-8 ... matquant-mlx-2, llama-TYPE and llama-TYPE-imatrix (TYPE:
# Q8_0, Q4_0, Q4_1, IQ4_NL, Q4_K_M, Q3_K_M, Q2_K), llama-Q4_K_M-embeddings (the embeddings, too, by llama.cpp's default),
# mlx-8 ... mlx-2, mlx-gptq-4, mlx-gptq-2, mlx-dwq-4, mlx-dwq-2; and each once more with -permuted at its end, from the same
# model with its channels in another order, which computes the same: a source that was multiplied out of a quantized file is
# on that file's grid, which a type with the same blocks finds again, but not in another order. matquant's have that if
# --permuted-master is a master of it; it is the folder "permuted" of the work folder.
# All, unless some are named. Each is a JSON file in the work folder; what is there already is not measured again, and what
# was never measured is left out of the table.
#
# The importance matrix, gptq and dwq have --samples sequences (64) of --seq-len tokens (512) of --calib. dwq goes over them
# once, which is 16 steps instead of its default's 512, so its rate is higher than its default by that; it takes a minute or
# so a step. gptq and dwq compute in float32, with OpenBLAS where there is one; what they keep is bfloat16.
# The programs are those of scripts/test-readers.sh, which installs them.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$here/scripts/bench-lib.sh"
[ $# -gt 0 ] || usage
help_wanted "$@"
readers_environment "$here"
exec python3 "$here/scripts/bench_runtimes.py" --root "$here" --build "$build" --python "$python" "$@"
