//! Learns the tokenizer of the synthetic dialogues: `cargo run --release -p k2-train --example train_tokenizer -- DIR [dialogues]`.
use k2_chat::{RenderOptions, Template, Tokenizer, render};
use k2_train::{
    bpe,
    dialogues::{Generator, Scope},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = std::path::PathBuf::from(arguments.next().ok_or("DIR?")?);
    let count: u64 = arguments.next().map_or(Ok(20_000), |count| count.parse())?;
    let generator = Generator::new(1)?;
    let mut trainer = bpe::Trainer::new()?;
    let options = RenderOptions { add_generation_prompt: false, ..RenderOptions::default() };
    let start = std::time::Instant::now();
    let rendered = |index| {
        let dialogue = generator.dialogue(Scope::TRAINING, index);
        render(Template::K2Instruct, &dialogue.messages(), &dialogue.tools, options)
    };
    for index in 0..count {
        let rendered = rendered(index)?;
        let mut at = 0;
        for marker in &rendered.markers {
            trainer.add(&rendered.text[at..marker.start]);
            at = marker.end;
        }
        trainer.add(&rendered.text[at..]);
    }
    println!("read {:?}", start.elapsed());
    let tokens = trainer.train(bpe::Sizes::default())?;
    println!("trained {:?} {}", start.elapsed(), tokens.len());
    bpe::write(&folder, &tokens, 1024)?;
    let tokenizer = Tokenizer::from_dir(&folder)?;
    println!("n_vocab {}", tokenizer.n_vocab());
    let (mut all, mut loss) = (0, 0);
    for index in count..count + 2000 {
        let ids = rendered(index)?.ids(&tokenizer);
        all += ids.len();
        let (assistant, middle, end) = (
            tokenizer.specials().id("<|im_assistant|>"),
            tokenizer.specials().id("<|im_middle|>"),
            tokenizer.specials().id("<|im_end|>"),
        );
        let mut state = 0;
        for id in ids {
            if state == 2 {
                loss += 1;
                if Some(id) == end {
                    state = 0;
                }
            } else if Some(id) == assistant {
                state = 1;
            } else if state == 1 && Some(id) == middle {
                state = 2;
            }
        }
    }
    println!("tokens per dialogue {}, with loss {}", all / 2000, loss / 2000);
    for text in [
        "What's the weather like in Beijing today? Use the tool to check.",
        "{\"city\": \"Beijing\"}",
        "The weather in Beijing is Sunny.",
        "What is 318 * 42?",
        "How many miles are 26 kilometers?",
        "Wrocław Schneiderhof Zorblax-77 qRtZ7",
    ] {
        let ids = tokenizer.encode(text, false);
        println!("{:?}", ids.iter().map(|&id| String::from_utf8_lossy(tokenizer.token_bytes(id).unwrap_or_default()).into_owned()).collect::<Vec<_>>());
    }
    Ok(())
}
