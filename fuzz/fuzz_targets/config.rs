//! `config.json`: the quantization scheme and the model's config.
#![no_main]

use k2_weights::quantization::Scheme;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let Ok(config) = serde_json::from_slice::<Value>(data) else { return };
    let text = config.get("text_config").unwrap_or(&config);
    let _ = k2_model::Config::from_json(text);
    if let Ok(scheme) = Scheme::from_config(text, &config) {
        for name in ["lm_head.weight", "model.layers.10.mlp.experts.3.up_proj.weight"] {
            let _ = scheme.check(name, "INT4");
        }
    }
});
