//! The compiler of grammars of the small tokenizer.

use std::sync::LazyLock;

use k2_chat::GrammarCompiler;

use crate::small_tokenizer::TOKENIZER;

pub(crate) static COMPILER: LazyLock<GrammarCompiler> =
    LazyLock::new(|| GrammarCompiler::new(&TOKENIZER, &TOKENIZER.stop_ids(&[])).expect("a compiler"));
