//! Text to ids and back: any text survives, whole and token by token, and user text has no control token.
#![no_main]

mod small_tokenizer;

use k2_chat::Detokenizer;
use libfuzzer_sys::fuzz_target;
use small_tokenizer::TOKENIZER;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    for allow_special in [false, true] {
        let ids = TOKENIZER.encode(&text, allow_special);
        assert_eq!(TOKENIZER.decode(&ids).expect("known ids"), text);
        let mut detokenizer = Detokenizer::new();
        let mut streamed: String =
            ids.iter().map(|&id| detokenizer.push(&TOKENIZER, id).expect("a known id")).collect();
        streamed += &detokenizer.finish();
        assert_eq!(streamed, text);
        if !allow_special {
            assert!(ids.iter().all(|&id| TOKENIZER.specials().get(id).is_none()));
        }
    }
});
