//! The tools of a conversation in the terminal: those of a file, whose results are typed in, or a few that this
//! program carries out itself, so that the model inside it has something to call.

mod arithmetic;
mod units;

use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};

use clap::Args;
use k2_chat::Tool;
use k2_chat::tool_calls::ReplyCall;
use serde_json::{Value, json};

/// Longest file of tools, in bytes.
const LONGEST_FILE: u64 = 1 << 20;

/// Most dice, and most sides of one.
const MOST_DICE: u64 = 100;

/// Which tools a conversation has.
#[derive(Debug, Args)]
pub(crate) struct ToolArgs {
    /// Declare the tools of this file, a JSON array in OpenAI's form; you are asked what each call returns
    /// [default: none; with the model inside this program a calculator, unit conversion and dice, which it
    /// carries out].
    #[arg(long, value_name = "FILE", conflicts_with = "no_tools")]
    tools: Option<PathBuf>,
    /// Declare no tools.
    #[arg(long)]
    no_tools: bool,
}

/// The declared tools, and who carries them out.
pub(super) struct Tools {
    /// As they are declared.
    pub(super) declared: Vec<Tool>,
    /// True if results are typed in.
    typed: bool,
}

impl ToolArgs {
    /// The tools of the command line; `embedded` says that the model is the one inside the program.
    pub(super) fn tools(&self, embedded: bool) -> Result<Tools, Box<dyn Error>> {
        match &self.tools {
            Some(path) => Ok(Tools { declared: read(path)?, typed: true }),
            None if embedded && !self.no_tools => {
                Ok(Tools { declared: serde_json::from_value(demonstration())?, typed: false })
            }
            None => Ok(Tools { declared: Vec::new(), typed: false }),
        }
    }
}

fn read(path: &Path) -> Result<Vec<Tool>, Box<dyn Error>> {
    let shown = path.display();
    let bytes = std::fs::metadata(path).map_err(|error| format!("{shown}: {error}"))?.len();
    if bytes > LONGEST_FILE {
        return Err(format!("{shown}: {bytes} bytes, a file of tools has at most {LONGEST_FILE}").into());
    }
    let text = std::fs::read(path).map_err(|error| format!("{shown}: {error}"))?;
    let tools: Vec<Tool> = serde_json::from_slice(&text)
        .map_err(|error| format!("{shown}: not a JSON array of tools in OpenAI's form: {error}"))?;
    match tools.iter().position(|tool| tool.name().is_none()) {
        Some(place) => Err(format!("{shown}: tool {place} has no function.name").into()),
        None => Ok(tools),
    }
}

impl Tools {
    /// What a call gives; none if the input has ended before a result was typed.
    pub(super) fn result(&self, call: &ReplyCall) -> io::Result<Option<String>> {
        if !self.typed {
            return Ok(Some(carried_out(call).to_string()));
        }
        eprint!("result of {}> ", call.name);
        let mut line = String::new();
        let read = io::stdin().lock().read_line(&mut line)?;
        Ok((read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
    }
}

/// Tools that need neither network nor files.
fn demonstration() -> Value {
    let tool = |name: &str, description: &str, properties: Value, required: Value| {
        json!({"type": "function", "function": {"name": name, "description": description,
            "parameters": {"type": "object", "properties": properties, "required": required}}})
    };
    json!([
        tool(
            "calculate",
            "Evaluate an arithmetic expression.",
            json!({"expression": {"type": "string", "description": "The expression, for example 12*(3+4)"}}),
            json!(["expression"])
        ),
        tool(
            "convert_units",
            "Convert a quantity from one unit to another.",
            json!({
                "value": {"type": "number", "description": "The value to convert"},
                "from_unit": {"type": "string", "description": "Unit to convert from"},
                "to_unit": {"type": "string", "description": "Unit to convert to"}
            }),
            json!(["value", "from_unit", "to_unit"])
        ),
        tool(
            "roll_dice",
            "Throws dice with a number of sides.",
            json!({
                "count": {"type": "integer", "description": "How many dice"},
                "sides": {"type": "integer", "description": "Sides of a die"}
            }),
            json!(["count"])
        ),
    ])
}

fn carried_out(call: &ReplyCall) -> Value {
    let arguments: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
    let text = |key: &str| arguments[key].as_str().unwrap_or_default();
    let result = match call.name.as_str() {
        "calculate" => arithmetic::evaluate(text("expression")).map(|value| json!({"value": rounded(value)})),
        "convert_units" => {
            let value = arguments["value"].as_f64().ok_or("invalid argument");
            let converted = value.and_then(|value| units::convert(value, text("from_unit"), text("to_unit")));
            converted.map(|value| json!({"value": rounded(value)}))
        }
        "roll_dice" => dice(arguments["count"].as_u64(), arguments["sides"].as_u64()),
        _ => Err("unknown name"),
    };
    result.unwrap_or_else(|error| json!({"error": error}))
}

/// Six digits behind the point, and none where the number is whole.
fn rounded(value: f64) -> Value {
    let value = (value * 1e6).round() / 1e6;
    if value.fract() == 0.0 && value.abs() < 9e15 { json!(value as i64) } else { json!(value) }
}

fn dice(count: Option<u64>, sides: Option<u64>) -> Result<Value, &'static str> {
    let (count, sides) = (count.ok_or("invalid argument")?, sides.unwrap_or(6));
    if !(1..=MOST_DICE).contains(&count) || !(2..=MOST_DICE).contains(&sides) {
        return Err("out of range");
    }
    // Keys of a hash map are drawn anew in each program; nobody's money hangs on these dice.
    let random = RandomState::new();
    let rolls: Vec<u64> = (0..count).map(|die| 1 + random.hash_one(die) % sides).collect();
    Ok(json!({"sum": rolls.iter().sum::<u64>()}))
}
