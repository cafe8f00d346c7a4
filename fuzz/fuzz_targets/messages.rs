//! A request's messages and tools: normalised, rendered in every turn format, encoded. The control tokens
//! in the prompt are those that the format put there.
#![no_main]

mod small_tokenizer;

use k2_chat::{Message, RenderOptions, Template, Tool, normalize, render};
use libfuzzer_sys::fuzz_target;
use serde::Deserialize;
use small_tokenizer::TOKENIZER;
use std::ops::Range;

#[derive(Deserialize)]
struct Request {
    messages: Vec<Message>,
    #[serde(default)]
    tools: Vec<Tool>,
}

fuzz_target!(|data: &[u8]| {
    let Ok(Request { mut messages, tools }) = serde_json::from_slice(data) else { return };
    for normalized in [false, true] {
        if normalized {
            normalize(&mut messages);
        }
        for template in Template::ALL {
            let Ok(rendered) = render(template, &messages, &tools, RenderOptions::default()) else {
                continue;
            };
            let ids = rendered.ids(&TOKENIZER);
            let control = ids.iter().filter(|&&id| TOKENIZER.specials().get(id).is_some()).count();
            let known =
                |range: &&Range<usize>| TOKENIZER.specials().id(&rendered.text[(*range).clone()]).is_some();
            assert_eq!(control, rendered.markers.iter().filter(known).count());
            assert_eq!(TOKENIZER.decode(&ids).expect("known ids"), rendered.text);
        }
    }
});
