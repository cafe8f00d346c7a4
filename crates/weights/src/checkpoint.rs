//! Opening a checkpoint and handing out its weights.

use k2_kernels::dtype::{bf16_to_f32, f16_to_f32};
use k2_kernels::{Matrix, ScaleInv, Storage};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use crate::catalog::{Catalog, Encoding, Part, Skipped, Weight};
use crate::error::WeightsError;
use crate::files;
use crate::mmap::map;
use crate::quantization::Scheme;
use crate::safetensors::{self, Dtype, Header};
use crate::shards::{self, INDEX_FILE, INDEX_LIMIT};

/// An opened checkpoint: headers read and checked, data mapped and untouched.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    config: Value,
    generation_config: Option<Value>,
    catalog: Catalog,
}

/// How far [`Checkpoint::open`] has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Files whose header has been read.
    pub files: usize,
    /// Files there are.
    pub of: usize,
}

/// One weight, for listings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry<'a> {
    /// Official name, without a wrapper's prefix.
    pub name: &'a str,
    /// `BF16`, `FP8`, `INT4`, `Q4_K`...
    pub format: &'static str,
    /// Shape of the numbers.
    pub shape: Vec<usize>,
    /// Bytes in the file, scales included.
    pub bytes: u64,
    /// The file that holds it.
    pub file: &'a Path,
}

/// The text model's config alone: of a `config.json`, or of a folder with one (weights or not).
pub fn read_config(path: &Path) -> Result<Value, WeightsError> {
    let path = if path.is_dir() { path.join("config.json") } else { path.to_owned() };
    let config = files::read_json(&path)?;
    text_config(&path, config).map(|(text, _)| text)
}

impl Checkpoint {
    /// Opens a folder of safetensors.
    pub fn open(path: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Checkpoint, WeightsError> {
        open_folder(path, progress)
    }

    /// The text model's config under the official field names.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// `generation_config.json`, if the folder has one.
    pub fn generation_config(&self) -> Option<&Value> {
        self.generation_config.as_ref()
    }

    /// What was left out because it is not part of the text model.
    pub fn skipped(&self) -> Skipped {
        self.catalog.skipped
    }

    /// Whether a weight of this official name exists.
    pub fn has(&self, name: &str) -> bool {
        self.catalog.weights.contains_key(name)
    }

    /// Every weight of the text model, in the order of the names.
    pub fn tensors(&self) -> impl Iterator<Item = TensorEntry<'_>> {
        let mut weights: Vec<_> = self.catalog.weights.iter().collect();
        weights.sort_unstable_by_key(|(name, _)| name.as_str());
        weights.into_iter().map(|(name, weight)| TensorEntry {
            name,
            format: weight.format(),
            shape: weight.shape(),
            bytes: weight.stored_bytes(),
            file: self.catalog.path(weight.main().file),
        })
    }

    /// A weight matrix `[rows, cols]` by official name, in the format it is stored in.
    pub fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Matrix, WeightsError> {
        let weight = self.weight(name)?;
        let at = |part: &Part| self.catalog.path(part.file).to_owned();
        let (found, expected) = (weight.shape(), vec![rows, cols]);
        if found != expected {
            let path = at(weight.main());
            return Err(WeightsError::Shape { path, tensor: name.to_owned(), found, expected });
        }
        let storage = match weight {
            Weight::Plain(part) => self.plain(name, part)?,
            Weight::Fp8 { weight, scale_inv } => Storage::Fp8 {
                weight: self.of_dtype(name, weight, Dtype::F8_E4M3)?,
                scale_inv: self.scale_inv(name, scale_inv)?,
                first_row: 0,
            },
            Weight::Int4 { packed, scale, shape } => {
                self.check_weight_shape(name, shape, rows, cols)?;
                Storage::Int4 {
                    packed: self.of_dtype(name, packed, Dtype::I32)?,
                    scale: self.of_dtype(&format!("{name}_scale"), scale, Dtype::BF16)?,
                }
            }
        };
        let wrong = |error| WeightsError::Matrix { path: at(weight.main()), tensor: name.to_owned(), error };
        Matrix::new(rows, cols, storage).map_err(wrong)
    }

    /// A vector (norm weight, router bias) of `len` numbers, widened to f32.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, WeightsError> {
        let part = self.weight(name)?.main();
        if part.shape != [len] {
            let (path, found) = (self.catalog.path(part.file).to_owned(), part.shape.clone());
            return Err(WeightsError::Shape { path, tensor: name.to_owned(), found, expected: vec![len] });
        }
        let half = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]);
        let bytes = &part.bytes;
        Ok(match part.encoding {
            Encoding::Dtype(Dtype::F32) => {
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            Encoding::Dtype(Dtype::F16) => bytes.chunks_exact(2).map(|b| f16_to_f32(half(b))).collect(),
            Encoding::Dtype(Dtype::BF16) => bytes.chunks_exact(2).map(|b| bf16_to_f32(half(b))).collect(),
            _ => return Err(self.wrong_format(name, part, "F32, F16 or BF16")),
        })
    }

    fn weight(&self, name: &str) -> Result<&Weight, WeightsError> {
        let missing = || WeightsError::MissingTensor { path: self.path.clone(), tensor: name.to_owned() };
        self.catalog.weights.get(name).ok_or_else(missing)
    }

    fn plain(&self, name: &str, part: &Part) -> Result<Storage, WeightsError> {
        let bytes = part.bytes.clone();
        match part.encoding {
            Encoding::Dtype(Dtype::F32) => Ok(Storage::F32(bytes)),
            Encoding::Dtype(Dtype::F16) => Ok(Storage::F16(bytes)),
            Encoding::Dtype(Dtype::BF16) => Ok(Storage::Bf16(bytes)),
            Encoding::Ggml(kind) => Ok(Storage::Ggml { kind, blocks: bytes }),
            Encoding::Dtype(_) => Err(self.wrong_format(name, part, "F32, F16, BF16, FP8 or INT4")),
        }
    }

    fn scale_inv(&self, name: &str, part: &Part) -> Result<ScaleInv, WeightsError> {
        match part.encoding {
            Encoding::Dtype(Dtype::F32) => Ok(ScaleInv::F32(part.bytes.clone())),
            Encoding::Dtype(Dtype::F8_E8M0) => Ok(ScaleInv::Ue8m0(part.bytes.clone())),
            _ => Err(self.wrong_format(&format!("{name}_scale_inv"), part, "F32 or F8_E8M0")),
        }
    }

    fn of_dtype(&self, name: &str, part: &Part, dtype: Dtype) -> Result<bytes::Bytes, WeightsError> {
        match part.encoding == Encoding::Dtype(dtype) {
            true => Ok(part.bytes.clone()),
            false => Err(self.wrong_format(name, part, dtype.name())),
        }
    }

    /// `weight_shape` (I32 or I64) says what the packed tensor implies.
    fn check_weight_shape(
        &self,
        name: &str,
        part: &Part,
        rows: usize,
        cols: usize,
    ) -> Result<(), WeightsError> {
        let tensor = format!("{name}_shape");
        let word = |b: &[u8]| i32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let found: Vec<i64> = match part.encoding {
            Encoding::Dtype(Dtype::I32) => part.bytes.chunks_exact(4).map(|b| word(b).into()).collect(),
            Encoding::Dtype(Dtype::I64) => {
                let low = |b: &[u8]| u64::from(word(b) as u32);
                part.bytes.chunks_exact(8).map(|b| i64::from(word(&b[4..])) << 32 | low(b) as i64).collect()
            }
            _ => return Err(self.wrong_format(&tensor, part, "I32 or I64")),
        };
        match found == [rows as i64, cols as i64] {
            true => Ok(()),
            false => {
                let path = self.catalog.path(part.file).to_owned();
                Err(WeightsError::WeightShape { path, tensor, found, expected: vec![rows, cols] })
            }
        }
    }

    fn wrong_format(&self, tensor: &str, part: &Part, expected: &'static str) -> WeightsError {
        let path = self.catalog.path(part.file).to_owned();
        WeightsError::Format { path, tensor: tensor.to_owned(), found: part.encoding.name(), expected }
    }
}

fn open_folder(path: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Checkpoint, WeightsError> {
    let config_path = path.join("config.json");
    let (config, scheme) = text_config(&config_path, files::read_json(&config_path)?)?;
    let generation_path = path.join("generation_config.json");
    let generation_config = match generation_path.exists() {
        true => Some(files::read_json(&generation_path)?),
        false => None,
    };
    let (files, tensors) = if path.join(INDEX_FILE).exists() {
        open_shards(path, progress)?
    } else if path.join("model.safetensors").exists() {
        open_files(vec![path.join("model.safetensors")], progress)?
    } else {
        return Err(WeightsError::NoCheckpoint { path: path.to_owned() });
    };
    let tensors = tensors.into_iter().flatten();
    let catalog = Catalog::join(files, tensors, &scheme, &config_path)?;
    Ok(Checkpoint { path: path.to_owned(), config, generation_config, catalog })
}

/// The text model's part of a config, and the quantization scheme that the whole announces.
fn text_config(path: &Path, config: Value) -> Result<(Value, Scheme), WeightsError> {
    let not_an_object = |within| WeightsError::NotAnObject { path: path.to_owned(), within };
    let wrapper = config.as_object().ok_or_else(|| not_an_object(None))?;
    let text = match wrapper.get("text_config") {
        None => &config,
        Some(text) if text.is_object() => text,
        Some(_) => return Err(not_an_object(Some("text_config"))),
    };
    let refuse = |error| WeightsError::Quantization { path: path.to_owned(), error };
    let scheme = Scheme::from_config(text, &config).map_err(refuse)?;
    Ok((text.clone(), scheme))
}

/// Files and, for each, the tensors in it.
type Opened = (Vec<PathBuf>, Vec<Vec<(String, Part)>>);

fn open_shards(folder: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Opened, WeightsError> {
    let path = folder.join(INDEX_FILE);
    let wrong = |error| WeightsError::Index { path: path.clone(), error };
    let index = shards::parse(&files::read(&path, INDEX_LIMIT)?).map_err(wrong)?;
    let paths: Result<Vec<_>, _> = index.files.iter().map(|file| files::inside(folder, file)).collect();
    let opened = open_files(paths?, progress)?;
    let listed: Vec<Vec<&str>> =
        opened.1.iter().map(|tensors| tensors.iter().map(|(name, _)| name.as_str()).collect()).collect();
    index.check(&listed).map_err(wrong)?;
    Ok(opened)
}

/// Maps the files and reads their headers on all processors.
fn open_files(paths: Vec<PathBuf>, progress: &mut dyn FnMut(Progress)) -> Result<Opened, WeightsError> {
    let (next, (sender, receiver)) = (AtomicUsize::new(0), mpsc::channel());
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(paths.len());
    let mut opened: Vec<Option<Result<_, WeightsError>>> = paths.iter().map(|_| None).collect();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, next, paths) = (sender.clone(), &next, &paths);
            scope.spawn(move || {
                loop {
                    let file = next.fetch_add(1, Ordering::Relaxed);
                    let Some(path) = paths.get(file) else { break };
                    // The receiver lives until all threads are done.
                    let _ = sender.send((file, open_file(file, path)));
                }
            });
        }
        drop(sender);
        for (done, (file, result)) in receiver.iter().enumerate() {
            opened[file] = Some(result);
            progress(Progress { files: done + 1, of: paths.len() });
        }
    });
    let tensors = opened.into_iter().flatten().collect::<Result<Vec<_>, _>>()?;
    Ok((paths, tensors))
}

fn open_file(file: usize, path: &Path) -> Result<Vec<(String, Part)>, WeightsError> {
    let bytes = map(path)?;
    let wrong = |error| WeightsError::Safetensors { path: path.to_owned(), error };
    let Header { tensors } = safetensors::parse(&bytes).map_err(wrong)?;
    let part = |info: safetensors::TensorInfo| Part {
        file,
        encoding: Encoding::Dtype(info.dtype),
        shape: info.shape,
        bytes: bytes.slice(info.range),
    };
    Ok(tensors.into_iter().map(|(name, info)| (name, part(info))).collect())
}
