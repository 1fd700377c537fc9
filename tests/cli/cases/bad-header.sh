# A header of model.safetensors that lies: about its length, offsets, shapes, types.
. "$CLI/shared.sh"
tensor='in/model.safetensors: tensor model\.layers\.1\.mlp\.up_proj\.weight'
refused length-past-end 'in/model.safetensors: at byte 0: a header of 16777216 bytes in a file of [0-9]+'
refused length-huge 'in/model.safetensors: at byte 0: a header of 18446744073709551615 bytes, more than 100 MiB'
refused header-not-json 'in/model.safetensors: at byte [0-9]+: .*JSON.*'
refused header-not-object "in/model.safetensors: at byte 8: the header does not begin with '\\{'"
refused header-not-utf8 'in/model.safetensors: at byte [0-9]+: .*UTF-8'
refused duplicate-name "$tensor: stands twice in the header"
refused offsets-past-end "$tensor: at byte [0-9]+: .* are not within the [0-9]+ bytes of data"
refused offsets-reversed "$tensor: at byte [0-9]+: \"data_offsets\" [0-9]+ to [0-9]+ are not within the [0-9]+ bytes of data"
refused offsets-negative "$tensor: \"data_offsets\" are not two whole numbers"
refused offsets-shift "$tensor: at byte [0-9]+: 98302 bytes of data for a dtype and shape of 98304"
refused overlap 'in/model.safetensors: tensor [a-z0-9._]+: at byte [0-9]+: overlaps tensor [a-z0-9._]+'
refused shape-lies "$tensor: at byte [0-9]+: 98304 bytes of data for a dtype and shape of 196608"
refused shape-transposed "$tensor: its shape \[128, 384\] contradicts config.json, which makes it \[384, 128\]"
refused shape-huge "$tensor: the product of \"shape\" overflows"
refused shape-negative "$tensor: an entry of \"shape\" is not a whole number"
refused unknown-dtype "$tensor: unknown dtype \"F17\""
refused gap 'in/model.safetensors: at byte [0-9]+: 4 bytes of data belong to no tensor'
