//! `tokenizer_config.json`: the special tokens, and their search in a text.
#![no_main]

use k2_chat::special::SpecialTokens;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for vocab_size in [None, Some(300)] {
        let Ok(specials) = SpecialTokens::from_config(data, 256, vocab_size) else { continue };
        let text: String = specials.iter().take(50).map(|(_, special)| special.content.as_str()).collect();
        for (start, end, id) in specials.find(&text) {
            assert_eq!(specials.get(id).map(|special| special.content.as_str()), text.get(start..end));
        }
    }
});
