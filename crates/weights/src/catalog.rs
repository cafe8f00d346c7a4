//! Every weight of a checkpoint by its official name, the parts of quantized ones joined.
//!
//! A published weight may be several tensors: FP8 is `X.weight` and `X.weight_scale_inv`; INT4 is
//! `X.weight_packed`, `X.weight_scale` and `X.weight_shape`. Here each is one entry `X.weight`. Names lose
//! the prefix `language_model.` of `kimi_k25`; what is not part of the text model is counted and skipped.

use bytes::Bytes;
use k2_kernels::GgmlType;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};

use crate::error::WeightsError;
use crate::quantization::{QuantizationError, Scheme};
use crate::safetensors::Dtype;

/// Tensors that are not part of the text model (`model.*`, `lm_head.*`): those of a vision tower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// How many.
    pub tensors: usize,
    /// Their size.
    pub bytes: u64,
}

/// One tensor of a file.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) file: usize,
    pub(crate) encoding: Encoding,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Bytes,
}

/// How the numbers of a [`Part`] are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Element by element.
    Dtype(Dtype),
    /// In blocks along the last dimension.
    Ggml(GgmlType),
}

/// A weight and all of its parts.
#[derive(Clone, Debug)]
pub(crate) enum Weight {
    Plain(Part),
    Fp8 { weight: Part, scale_inv: Part },
    Int4 { packed: Part, scale: Part, shape: Part },
}

/// The weights of a checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) weights: HashMap<String, Weight>,
    pub(crate) skipped: Skipped,
}

/// Suffixes that say what a weight is made of.
const SPEAKING: [&str; 4] = ["_packed", "_scale_inv", "_zero_point", "_g_idx"];

/// Suffixes of tensors that only unsupported variants of compressed-tensors have.
const VARIANTS: [(&str, &str); 2] =
    [(".weight_zero_point", "an asymmetric scheme"), (".weight_g_idx", "activation ordering (`actorder`)")];

impl Encoding {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Encoding::Dtype(dtype) => dtype.name(),
            Encoding::Ggml(kind) => kind.name(),
        }
    }
}

impl Weight {
    /// The part that the name stands for.
    pub(crate) fn main(&self) -> &Part {
        match self {
            Weight::Plain(part) | Weight::Fp8 { weight: part, .. } | Weight::Int4 { packed: part, .. } => {
                part
            }
        }
    }

    pub(crate) fn format(&self) -> &'static str {
        match self {
            Weight::Plain(part) => part.encoding.name(),
            Weight::Fp8 { .. } => "FP8",
            Weight::Int4 { .. } => "INT4",
        }
    }

    /// The shape of the numbers, not of the codes.
    pub(crate) fn shape(&self) -> Vec<usize> {
        let mut shape = self.main().shape.clone();
        if let (Weight::Int4 { .. }, Some(cols)) = (self, shape.last_mut()) {
            *cols = cols.saturating_mul(8);
        }
        shape
    }

    /// Bytes in the file, all parts together.
    pub(crate) fn stored_bytes(&self) -> u64 {
        let sizes = match self {
            Weight::Plain(part) => [part.bytes.len(), 0, 0],
            Weight::Fp8 { weight, scale_inv } => [weight.bytes.len(), scale_inv.bytes.len(), 0],
            Weight::Int4 { packed, scale, shape } => {
                [packed.bytes.len(), scale.bytes.len(), shape.bytes.len()]
            }
        };
        sizes.iter().map(|&n| n as u64).sum()
    }
}

impl Catalog {
    pub(crate) fn path(&self, file: usize) -> &Path {
        &self.files[file]
    }

    /// Adds a weight whose name no other may have.
    pub(crate) fn insert(&mut self, name: String, weight: Weight) -> Result<(), WeightsError> {
        match self.weights.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(weight);
                Ok(())
            }
            Entry::Occupied(entry) => {
                Err(duplicate(&self.files, entry.key(), entry.get().main(), weight.main()))
            }
        }
    }

    /// Joins the tensors of safetensors files. Their names still carry the wrapper's prefix.
    pub(crate) fn join(
        files: Vec<PathBuf>,
        tensors: impl Iterator<Item = (String, Part)>,
        scheme: &Scheme,
        config: &Path,
    ) -> Result<Catalog, WeightsError> {
        let mut catalog = Catalog { files, ..Catalog::default() };
        let parts = catalog.text_parts(tensors)?;
        let refuse = |error| WeightsError::Quantization { path: config.to_owned(), error };
        catalog.weights = join_parts(parts).map_err(refuse)?;
        let checked =
            catalog.weights.iter().map(|(name, weight)| (name, scheme.check(name, weight.format())));
        let first_wrong = checked.filter(|(_, result)| result.is_err()).min_by_key(|(name, _)| *name);
        match first_wrong.and_then(|(_, result)| result.err()) {
            None => Ok(catalog),
            Some(error) => Err(refuse(error)),
        }
    }

    /// The text model's tensors without prefix; the others are counted.
    fn text_parts(
        &mut self,
        tensors: impl Iterator<Item = (String, Part)>,
    ) -> Result<HashMap<String, Part>, WeightsError> {
        let mut parts: HashMap<String, Part> = HashMap::with_capacity(tensors.size_hint().0);
        for (mut name, part) in tensors {
            if let Some(inner) = name.strip_prefix("language_model.") {
                name = inner.to_owned();
            }
            if !name.starts_with("model.") && !name.starts_with("lm_head.") {
                self.skipped.tensors += 1;
                self.skipped.bytes += part.bytes.len() as u64;
                continue;
            }
            match parts.entry(name) {
                Entry::Vacant(entry) => entry.insert(part),
                Entry::Occupied(entry) => {
                    return Err(duplicate(&self.files, entry.key(), entry.get(), &part));
                }
            };
        }
        Ok(parts)
    }
}

fn duplicate(files: &[PathBuf], tensor: &str, first: &Part, second: &Part) -> WeightsError {
    let (first, second) = (files[first.file].clone(), files[second.file].clone());
    WeightsError::DuplicateTensor { tensor: tensor.to_owned(), first, second }
}

fn join_parts(mut parts: HashMap<String, Part>) -> Result<HashMap<String, Weight>, QuantizationError> {
    let speaking = |name: &&String| SPEAKING.iter().any(|suffix| name.ends_with(suffix));
    let mut names: Vec<String> = parts.keys().filter(speaking).cloned().collect();
    names.sort_unstable(); // the same error whatever the order of the map
    let mut weights = HashMap::with_capacity(parts.len());
    for name in names {
        if let Some((_, variant)) = VARIANTS.iter().find(|(suffix, _)| name.ends_with(suffix)) {
            return Err(QuantizationError::Variant { tensor: name, variant });
        }
        if let Some(module) = name.strip_suffix("_packed") {
            let mut take = |suffix| take(&mut parts, &name, format!("{module}{suffix}"));
            let weight =
                Weight::Int4 { packed: take("_packed")?, scale: take("_scale")?, shape: take("_shape")? };
            add(&mut weights, module.to_owned(), weight)?;
        } else if let Some(module) = name.strip_suffix("_scale_inv") {
            let mut take = |suffix| take(&mut parts, &name, format!("{module}{suffix}"));
            let weight = Weight::Fp8 { weight: take("")?, scale_inv: take("_scale_inv")? };
            add(&mut weights, module.to_owned(), weight)?;
        }
    }
    for (name, part) in parts {
        if let Some(missing) = lacking(&name, &part) {
            return Err(QuantizationError::Incomplete { tensor: name, missing });
        }
        add(&mut weights, name, Weight::Plain(part))?;
    }
    Ok(weights)
}

/// A weight in two forms is refused.
fn add(weights: &mut HashMap<String, Weight>, name: String, weight: Weight) -> Result<(), QuantizationError> {
    match weights.entry(name) {
        Entry::Vacant(entry) => {
            entry.insert(weight);
            Ok(())
        }
        Entry::Occupied(entry) => Err(QuantizationError::Both { tensor: entry.key().clone() }),
    }
}

fn take(parts: &mut HashMap<String, Part>, of: &str, name: String) -> Result<Part, QuantizationError> {
    parts.remove(&name).ok_or_else(|| QuantizationError::Incomplete { tensor: of.to_owned(), missing: name })
}

/// What a tensor that no other claimed cannot do without.
fn lacking(name: &str, part: &Part) -> Option<String> {
    let stem = name.strip_suffix(".weight_scale").or_else(|| name.strip_suffix(".weight_shape"));
    match stem {
        Some(module) => Some(format!("{module}.weight_packed")),
        None if part.encoding == Encoding::Dtype(Dtype::F8_E4M3) => Some(format!("{name}_scale_inv")),
        None => None,
    }
}
