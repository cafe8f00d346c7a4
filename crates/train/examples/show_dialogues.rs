//! Prints synthetic dialogues in the turn format: `cargo run --release -p k2-train --example show_dialogues -- [count] [first]`.

use k2_chat::{RenderOptions, Template, render};
use k2_train::dialogues::{Generator, Scope};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let count = arguments.next().transpose()?.unwrap_or(5);
    let first = arguments.next().transpose()?.unwrap_or(0);
    let generator = Generator::new(1)?;
    for index in first..first + count {
        let dialogue = generator.dialogue(Scope::TRAINING, index);
        let options = RenderOptions { add_generation_prompt: false, ..RenderOptions::default() };
        let rendered = render(Template::K2Instruct, &dialogue.messages(), &dialogue.tools, options)?;
        println!("---- {index}\n{}", rendered.text.replace("<|im_end|>", "<|im_end|>\n"));
    }
    Ok(())
}
