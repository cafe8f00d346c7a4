//! `quantization_config` of a checkpoint: which scheme, and whether the tensors keep to it.
//!
//! Two schemes exist in the K2 family. `fp8`: e4m3 codes with one `weight_scale_inv` per 128x128 block
//! (DeepSeek-V3's form). `compressed-tensors` in the `pack-quantized` format: 4-bit integers, symmetric,
//! groups of 32 along the input, and a list of modules to `ignore`. Any other setting would silently
//! mean other numbers, so it is refused by the name of its field.

use regex_automata::meta::{BuildError, Regex};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::error::Error;

use crate::text::{cut, shown};

/// Most `re:` patterns accepted, and the largest automaton of one: every linear layer is tried on all.
/// The published lists have three.
const PATTERNS: usize = 32;
const PATTERN_BYTES: usize = 1 << 18;

/// How a checkpoint's linear layers are stored.
#[derive(Debug)]
pub enum Scheme {
    /// No `quantization_config`: as the dtypes say.
    Plain,
    /// FP8 e4m3 in blocks of 128x128.
    Fp8,
    /// INT4 in groups of 32, except the modules that the list names.
    Int4(Ignore),
}

/// The `ignore` list of compressed-tensors.
#[derive(Debug, Default)]
pub struct Ignore {
    names: HashSet<String>,
    patterns: Vec<Pattern>,
}

/// Why the scheme cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // fields are what the messages show
pub enum QuantizationError {
    /// A setting with another meaning than the supported one.
    #[error("`{field}` is {found}; supported: {supported}")]
    Unsupported { field: String, found: String, supported: &'static str },
    /// A pattern that is not a regular expression this reader knows.
    #[error("`quantization_config.ignore` has the pattern `{pattern}`, which is not supported: {reason}")]
    Pattern { pattern: String, reason: String },
    /// A quantized tensor where the config announces none.
    #[error("tensor `{tensor}` is {found}, but the config announces {scheme}")]
    Undeclared { tensor: String, found: &'static str, scheme: &'static str },
    /// A module on the ignore list is quantized all the same.
    #[error("tensor `{tensor}` is INT4, but `quantization_config.ignore` exempts it")]
    Ignored { tensor: String },
    /// A module that should be quantized is not.
    #[error(
        "tensor `{tensor}` is {found}, but `quantization_config` makes it INT4 and `ignore` does not exempt it"
    )]
    NotQuantized { tensor: String, found: &'static str },
    /// One of the tensors that make up a weight is missing.
    #[error("tensor `{tensor}` is there without `{missing}`")]
    Incomplete { tensor: String, missing: String },
    /// A weight that is there in two forms.
    #[error("tensor `{tensor}` is there plain and quantized")]
    Both { tensor: String },
    /// A tensor that only an unsupported variant has.
    #[error(
        "tensor `{tensor}` belongs to {variant}, which is not supported; supported: symmetric groups of 32 in order"
    )]
    Variant { tensor: String, variant: &'static str },
}

impl Scheme {
    /// Recognises the scheme of a config: of the text model, or of the wrapper around it.
    pub fn from_config(text: &Value, wrapper: &Value) -> Result<Scheme, QuantizationError> {
        let found = |config: &Value| config.get("quantization_config").filter(|q| !q.is_null()).cloned();
        let Some(config) = found(text).or_else(|| found(wrapper)) else { return Ok(Scheme::Plain) };
        let root =
            Fields { path: "quantization_config".into(), object: object(&config, "quantization_config")? };
        match root.get("quant_method").and_then(Value::as_str) {
            Some("fp8") => fp8(&root),
            Some("compressed-tensors") => compressed_tensors(&root),
            _ => root.refuse("quant_method", "\"fp8\", \"compressed-tensors\""),
        }
    }

    /// For messages.
    pub fn name(&self) -> &'static str {
        match self {
            Scheme::Plain => "no quantization",
            Scheme::Fp8 => "fp8",
            Scheme::Int4(_) => "compressed-tensors",
        }
    }

    /// Checks one weight, by official name and format label, against the scheme.
    pub fn check(&self, tensor: &str, found: &'static str) -> Result<(), QuantizationError> {
        let module = tensor.strip_suffix(".weight");
        let undeclared =
            || Err(QuantizationError::Undeclared { tensor: tensor.to_owned(), found, scheme: self.name() });
        match (self, found, module) {
            (Scheme::Fp8, "FP8", _) => Ok(()),
            (Scheme::Int4(ignore), "INT4", Some(module)) => match ignore.contains(module) {
                true => Err(QuantizationError::Ignored { tensor: tensor.to_owned() }),
                false => Ok(()),
            },
            (_, "FP8" | "INT4", _) => undeclared(),
            (Scheme::Int4(ignore), _, Some(module)) if is_linear(module) && !ignore.contains(module) => {
                Err(QuantizationError::NotQuantized { tensor: tensor.to_owned(), found })
            }
            _ => Ok(()),
        }
    }
}

/// Linear layers by the official names; the router `mlp.gate` is a bare parameter and not one.
fn is_linear(module: &str) -> bool {
    module == "lm_head" || module.ends_with("_proj") || module.ends_with("kv_a_proj_with_mqa")
}

fn fp8(root: &Fields<'_>) -> Result<Scheme, QuantizationError> {
    root.allow("activation_scheme", &[Value::Null, "dynamic".into()], "\"dynamic\"")?;
    root.allow("fmt", &[Value::Null, "e4m3".into()], "\"e4m3\"")?;
    root.allow("scale_fmt", &[Value::Null, "ue8m0".into(), "float".into()], "\"ue8m0\" or none")?;
    root.allow("weight_block_size", &[serde_json::json!([128, 128])], "[128, 128]")?;
    Ok(Scheme::Fp8)
}

fn compressed_tensors(root: &Fields<'_>) -> Result<Scheme, QuantizationError> {
    root.allow("format", &["pack-quantized".into()], "\"pack-quantized\"")?;
    root.allow("quantization_status", &[Value::Null, "compressed".into()], "\"compressed\"")?;
    root.allow("kv_cache_scheme", &[Value::Null], "null")?;
    for unsupported in ["sparsity_config", "transform_config"] {
        root.allow(unsupported, &[Value::Null, Value::Object(Map::new())], "none")?;
    }
    let groups = root.inside("config_groups", "one group of 4-bit weights")?;
    if groups.object.is_empty() {
        return root.refuse("config_groups", "one group of 4-bit weights");
    }
    for name in groups.object.keys() {
        config_group(&groups.inside(name, "an object")?)?;
    }
    Ok(Scheme::Int4(Ignore::from_fields(root)?))
}

/// One of `config_groups`: 4-bit symmetric weights in groups of 32, nothing done to activations.
fn config_group(group: &Fields<'_>) -> Result<(), QuantizationError> {
    group.allow("targets", &[serde_json::json!(["Linear"])], "[\"Linear\"]")?;
    group.allow("input_activations", &[Value::Null], "null")?;
    group.allow("output_activations", &[Value::Null], "null")?;
    group.allow("format", &[Value::Null, "pack-quantized".into()], "\"pack-quantized\"")?;
    let weights = group.inside("weights", "an object")?;
    weights.allow("num_bits", &[4.into()], "4")?;
    weights.allow("type", &["int".into()], "\"int\"")?;
    weights.allow("symmetric", &[true.into()], "true")?;
    weights.allow("strategy", &["group".into()], "\"group\"")?;
    weights.allow("group_size", &[32.into()], "32")?;
    weights.allow("actorder", &[Value::Null, false.into()], "null")?;
    weights.allow("block_structure", &[Value::Null], "null")?;
    weights.allow("dynamic", &[Value::Null, false.into()], "false")
}

impl Ignore {
    fn from_fields(root: &Fields<'_>) -> Result<Ignore, QuantizationError> {
        const EXPECTED: &str = "a list of module names and `re:` patterns";
        let mut ignore = Ignore::default();
        let Some(list) = root.get("ignore").filter(|list| !list.is_null()) else { return Ok(ignore) };
        for entry in list.as_array().map_or_else(|| root.refuse("ignore", EXPECTED), Ok)? {
            let Some(entry) = entry.as_str() else { return root.refuse("ignore", EXPECTED) };
            match entry.strip_prefix("re:") {
                None => {
                    ignore.names.insert(plain(entry).to_owned());
                }
                Some(pattern) => ignore.patterns.push(Pattern::new(pattern)?),
            }
            if ignore.patterns.len() > PATTERNS {
                return root.refuse("ignore", "at most 32 `re:` patterns");
            }
        }
        Ok(ignore)
    }

    /// Whether a module (a name without the wrapper's prefix) is exempt.
    pub fn contains(&self, module: &str) -> bool {
        self.names.contains(module) || self.patterns.iter().any(|p| p.is_match(module))
    }
}

/// A `re:` entry. One that speaks of the wrapper's prefix is tried on names that have it.
#[derive(Debug)]
struct Pattern {
    regex: Regex,
    prefixed: bool,
}

impl Pattern {
    /// Means what Python's `re.match` means: bound to the beginning, free at the end.
    fn new(pattern: &str) -> Result<Pattern, QuantizationError> {
        let limits = Regex::config().nfa_size_limit(Some(PATTERN_BYTES));
        let regex = Regex::builder()
            .configure(limits)
            .build(&format!("^(?:{pattern})"))
            .map_err(|error| QuantizationError::Pattern { pattern: cut(pattern), reason: reason(&error) })?;
        Ok(Pattern { regex, prefixed: pattern.contains("language_model") })
    }

    fn is_match(&self, module: &str) -> bool {
        match self.prefixed {
            true => self.regex.is_match(&format!("language_model.{module}")),
            false => self.regex.is_match(module),
        }
    }
}

/// The last line of the innermost error: the others say that there is one, and draw arrows.
fn reason(error: &BuildError) -> String {
    let mut innermost: &dyn Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    cut(innermost.to_string().lines().last().unwrap_or_default())
}

/// A name without the wrapper's prefix.
fn plain(name: &str) -> &str {
    name.strip_prefix("language_model.").unwrap_or(name)
}

/// A JSON object whose settings are refused by their dotted path.
struct Fields<'a> {
    path: String,
    object: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name)
    }

    fn inside(&self, name: &str, expected: &'static str) -> Result<Fields<'a>, QuantizationError> {
        let object = self.get(name).and_then(Value::as_object);
        let object = object.map_or_else(|| self.refuse(name, expected), Ok)?;
        Ok(Fields { path: format!("{}.{name}", self.path), object })
    }

    /// An absent field counts as null.
    fn allow(&self, name: &str, values: &[Value], supported: &'static str) -> Result<(), QuantizationError> {
        match values.contains(self.get(name).unwrap_or(&Value::Null)) {
            true => Ok(()),
            false => self.refuse(name, supported),
        }
    }

    fn refuse<T>(&self, name: &str, supported: &'static str) -> Result<T, QuantizationError> {
        let found = self.get(name).map_or_else(|| "missing".to_owned(), shown);
        Err(QuantizationError::Unsupported { field: format!("{}.{name}", self.path), found, supported })
    }
}

fn object<'a>(value: &'a Value, field: &str) -> Result<&'a Map<String, Value>, QuantizationError> {
    value.as_object().ok_or_else(|| QuantizationError::Unsupported {
        field: field.to_owned(),
        found: shown(value),
        supported: "an object or null",
    })
}
