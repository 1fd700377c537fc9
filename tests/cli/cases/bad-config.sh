# A config.json that contradicts the tensors, or names what is not known.
. "$CLI/shared.sh"
refused config-shape 'in/model.safetensors: tensor model\.layers\.0\.mlp\.gate_proj\.weight: its shape \[384, 128\] contradicts config.json, which makes it \[320, 128\]'
refused config-vocabulary 'in/model.safetensors: tensor model\.embed_tokens\.weight: its shape \[1024, 128\] contradicts config.json, which makes it \[999, 128\]'
refused config-heads 'in/config.json: num_attention_heads 5 is not a multiple of num_key_value_heads 2'
refused config-negative 'in/config.json: "hidden_size" .*'
refused unknown-architecture 'in/config.json: .*"GPTNeoXForCausalLM".*LlamaForCausalLM, Gemma3ForCausalLM.*'
refused images 'in/config.json: .*"Gemma3nForConditionalGeneration".*; of other models with images or sound only the language model .*'
refused unknown-field 'in/config.json: .*"router_aux_loss_coef".*; it may be removed from config.json if .*'
refused unknown-activation 'in/config.json: .*hidden_act.*"relu6".*'
refused other-quantization 'in/config.json: .*already quantized.*gptq.*'
