//! Learns the tokenizer of the synthetic dialogues:
//! `cargo run --release -p k2-train --example train_tokenizer -- DIR [ranks] [dialogues]`.

use k2_chat::Tokenizer;
use k2_train::bpe::{self, Sizes, Trainer};
use k2_train::dialogues::Generator;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("which folder?")?);
    let mut number = || arguments.next().map(|argument| argument.parse::<u64>()).transpose();
    let mut sizes = Sizes::default();
    sizes.ranks = number()?.map_or(sizes.ranks, |ranks| ranks as usize);
    let dialogues = number()?.unwrap_or(20_000);
    let mut trainer = Trainer::new()?;
    trainer.add_dialogues(&Generator::new(1)?, dialogues)?;
    bpe::write(&folder, &trainer.train(sizes)?, 1024)?;
    let tokenizer = Tokenizer::from_dir(&folder)?;
    println!("{} tokens in {}", tokenizer.n_vocab(), folder.display());
    for text in ["What's the weather like in Ravenna today?", "{\"city\": \"Ravenna\", \"days\": 12}"] {
        let ids = tokenizer.encode(text, false);
        let tokens = ids.iter().map(|&id| tokenizer.decode(&[id])).collect::<Result<Vec<_>, _>>()?;
        println!("{tokens:?}");
    }
    Ok(())
}
