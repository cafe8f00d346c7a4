//! The `[data]` section of a recipe. Unknown keys are refused.

use k2_chat::Template;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::PathBuf;

use super::DataError;

/// Where the data comes from.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DataSettings {
    /// Folder with `tiktoken.model` and `tokenizer_config.json`.
    pub tokenizer: PathBuf,
    /// Turn format of conversations, by its name; left out, the one that a model with this tokenizer is served with.
    /// Another is refused.
    #[serde(default)]
    pub template: Option<String>,
    /// Seed of generators and shuffling.
    #[serde(default)]
    pub seed: u64,
    /// Share of the records of files that is held out, by a hash of each.
    #[serde(default = "one_percent")]
    pub held_out: f64,
    /// Leave records out that cannot be read, instead of stopping.
    #[serde(default)]
    pub skip_bad_records: bool,
    /// Weight in the loss of what the assistant did not say: system prompts, tools, users, results.
    #[serde(default)]
    pub prompt_weight: f32,
    /// Share of those tokens that is drawn; each drawn one counts so much more.
    #[serde(default = "one_f32")]
    pub prompt_sample: f32,
    /// Weight in the loss of the first token of each of the assistant's turns, where it calls, asks back or answers.
    #[serde(default = "one_f32")]
    pub first_token_weight: f32,
    /// What is mixed.
    pub sources: Vec<SourceSettings>,
}

/// One source.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSettings {
    /// What it is.
    pub kind: SourceKind,
    /// Its share of the tokens, in proportion to the others.
    #[serde(default = "one")]
    pub weight: f64,
    /// The file, for those that have one.
    #[serde(default)]
    pub path: Option<PathBuf>,
}

/// What a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// Synthetic tool dialogues.
    Dialogues,
    /// Invented lines, each said twice.
    Lines,
    /// Pieces of the vocabulary without any order, each row said twice: so every piece is copied.
    Pieces,
    /// A tool with a random schema, to be called with the plainest arguments that the schema takes.
    Schemas,
    /// A file of records `{"messages": [...], "tools": [...]}` or `{"text": "..."}`, one a line.
    Jsonl,
    /// A text file; blank lines part its documents.
    Text,
}

fn one() -> f64 {
    1.0
}

fn one_f32() -> f32 {
    1.0
}

fn one_percent() -> f64 {
    0.01
}

impl DataSettings {
    /// Reads and checks the section.
    pub fn from_recipe(section: &Map<String, Value>) -> Result<DataSettings, DataError> {
        let settings: DataSettings =
            serde_json::from_value(Value::Object(section.clone())).map_err(DataError::Settings)?;
        settings.check()?;
        Ok(settings)
    }

    /// The turn format of conversations: the one that the published model is served with. Where the tokenizer's folder
    /// has one that nobody here knows, it has to be named, for serving as well.
    pub fn template(&self) -> Result<Template, DataError> {
        let served = Template::of_tokenizer(&self.tokenizer, None);
        match (self.named_template()?, served) {
            (Some(named), Ok(served)) if named != served => {
                let tokenizer = self.tokenizer.clone();
                Err(DataError::OtherTemplate { named: named.name(), served: served.name(), tokenizer })
            }
            (Some(named), _) => Ok(named),
            (None, served) => Ok(served?),
        }
    }

    fn named_template(&self) -> Result<Option<Template>, DataError> {
        Ok(self.template.as_deref().map(Template::from_name).transpose()?)
    }

    fn check(&self) -> Result<(), DataError> {
        self.named_template()?;
        let wrong = |field, found: String, expected| Err(DataError::Value { field, found, expected });
        if !(0.0..=0.5).contains(&self.held_out) {
            return wrong("held_out", self.held_out.to_string(), "0 to 0.5");
        }
        if !(0.0..=1.0).contains(&self.prompt_weight) {
            return wrong("prompt_weight", self.prompt_weight.to_string(), "0 to 1");
        }
        if !(0.01..=1.0).contains(&self.prompt_sample) {
            return wrong("prompt_sample", self.prompt_sample.to_string(), "0.01 to 1");
        }
        if !(0.0..=100.0).contains(&self.first_token_weight) {
            return wrong("first_token_weight", self.first_token_weight.to_string(), "0 to 100");
        }
        if self.sources.is_empty() {
            return wrong("sources", "empty".to_owned(), "at least one");
        }
        for source in &self.sources {
            if !(source.weight > 0.0 && source.weight <= 1e6) {
                return wrong("sources.weight", source.weight.to_string(), "more than 0, at most 1e6");
            }
            let has_file = matches!(source.kind, SourceKind::Jsonl | SourceKind::Text);
            if has_file != source.path.is_some() {
                let found = format!("{:?} with{} path", source.kind, if has_file { "out" } else { "" });
                return wrong("sources", found, "a path for jsonl and text only");
            }
        }
        Ok(())
    }
}
