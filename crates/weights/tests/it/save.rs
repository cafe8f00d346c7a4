//! What is saved can be read, here and by the format's own implementation; a failed save leaves no trace.

use k2_weights::safetensors::{self, Dtype};
use k2_weights::{NewTensor, replace_file, save_safetensors};
use std::fs;
use std::io;

use crate::situations::fresh;

#[test]
fn saved_tensors_come_back() {
    let cases: [&[NewTensor<'_>]; 3] = [
        &[],
        &[("logits", Dtype::F32, &[1, 2], &[1, 2, 3, 4, 5, 6, 7, 8])],
        &[
            ("odd", Dtype::U8, &[3], &[9, 8, 7]),
            ("empty", Dtype::BF16, &[0, 5], &[]),
            ("sc\"alär", Dtype::I64, &[], &[1, 0, 0, 0, 0, 0, 0, 0]),
            ("half", Dtype::F16, &[1], &[5, 6]),
        ],
    ];
    for tensors in cases {
        let path = fresh("save").join("x.safetensors");
        save_safetensors(&path, tensors).unwrap();
        let file = fs::read(&path).unwrap();
        let header = safetensors::parse(&file).unwrap();
        assert_eq!(header.tensors.len(), tensors.len());
        for &(name, dtype, shape, bytes) in tensors {
            let (_, info) = header.tensors.iter().find(|(found, _)| found == name).unwrap();
            assert_eq!((info.dtype, &info.shape[..], &file[info.range.clone()]), (dtype, shape, bytes));
            assert!(info.range.start.is_multiple_of((dtype.bits() / 8) as usize), "{name} is not aligned");
        }
        let official = ::safetensors::SafeTensors::deserialize(&file).unwrap();
        assert_eq!(official.len(), tensors.len());
    }
}

#[test]
fn a_failed_save_leaves_the_old_file_and_nothing_else() {
    let folder = fresh("failed-save");
    let path = folder.join("x");
    replace_file(&path, |file| file.write_all(b"old")).unwrap();
    let error = replace_file(&path, |file| {
        file.write_all(b"half of the new")?;
        Err(io::Error::other("disk on fire"))
    });
    assert!(error.unwrap_err().to_string().contains("disk on fire"));
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    replace_file(&path, |file| file.write_all(b"new")).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
}
