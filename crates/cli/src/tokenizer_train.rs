//! `k2 tokenizer train`: byte-pair encoding to the files that Kimi K2's tokenizer is made of.

use clap::{Args, Subcommand};
use k2_train::bpe::{self, RESERVED, Sizes, Trainer};
use k2_train::dialogues::Generator;
use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;

/// Tokenizers.
#[derive(Debug, Args)]
pub(crate) struct TokenizerArgs {
    #[command(subcommand)]
    command: TokenizerCommand,
}

#[derive(Debug, Subcommand)]
enum TokenizerCommand {
    Train(TrainArgs),
}

/// Learn a tokenizer from texts, or from the synthetic tool dialogues.
#[derive(Debug, Args)]
struct TrainArgs {
    /// Folder to write tiktoken.model and tokenizer_config.json to.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Text files to learn from (UTF-8), besides the dialogues.
    #[arg(value_name = "TEXT")]
    texts: Vec<PathBuf>,
    /// How many synthetic dialogues to learn from.
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    dialogues: u64,
    /// Seed of the dialogues; a recipe's data.seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Size of the vocabulary, special tokens included.
    #[arg(long, default_value_t = Sizes::default().ranks + RESERVED, value_name = "N")]
    vocab_size: usize,
    /// Words that get a second token with a blank in front.
    #[arg(long, default_value_t = Sizes::default().blank_words, value_name = "N")]
    blank_words: usize,
    /// The model's context, which tokenizer_config.json states.
    #[arg(long, default_value_t = 2048, value_name = "N")]
    model_max_length: usize,
}

/// Runs the command.
pub(crate) fn run(args: &TokenizerArgs) -> Result<(), Box<dyn Error>> {
    let TokenizerCommand::Train(args) = &args.command;
    let mut trainer = Trainer::new()?;
    for path in &args.texts {
        trainer.add(&std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?);
    }
    trainer.add_dialogues(&Generator::new(args.seed)?, args.dialogues)?;
    let ranks = args.vocab_size.saturating_sub(RESERVED);
    let tokens = trainer.train(Sizes { ranks, blank_words: args.blank_words })?;
    bpe::write(&args.output, &tokens, args.model_max_length)?;
    writeln!(
        io::stdout(),
        "{} tokens and {RESERVED} reserved ids in {}",
        tokens.len(),
        args.output.display()
    )?;
    Ok(())
}
