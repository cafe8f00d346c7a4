//! One case for each way in which bytes are no matrix.

use bytes::Bytes;
use k2_kernels::{GgmlType, Matrix, ScaleInv, Storage};

fn zeros(len: usize) -> Bytes {
    vec![0; len].into()
}

fn fp8(weight: usize, scale_inv: ScaleInv) -> Storage {
    Storage::Fp8 { weight: zeros(weight), scale_inv, first_row: 0 }
}

/// A storage of `rows` x `cols`, and the error it must end in; no text means that it is a matrix.
fn check(rows: usize, cols: usize, storage: Storage, want: &str) {
    let found = Matrix::new(rows, cols, storage).err().map(|error| error.to_string()).unwrap_or_default();
    assert_eq!(found, want);
}

#[test]
fn bytes_are_exactly_as_many_as_the_shape_asks_for() {
    let ggml = |len| Storage::Ggml { kind: GgmlType::Q4_K, blocks: zeros(len) };
    let int4 = |packed, scale| Storage::Int4 { packed: zeros(packed), scale: zeros(scale) };
    check(3, 5, Storage::F32(zeros(60)), "");
    check(3, 5, Storage::F32(zeros(59)), "weight of a 3x5 F32 matrix has 59 bytes, expected 60");
    check(3, 5, Storage::F16(zeros(31)), "weight of a 3x5 F16 matrix has 31 bytes, expected 30");
    check(3, 5, Storage::Bf16(zeros(0)), "weight of a 3x5 BF16 matrix has 0 bytes, expected 30");
    check(129, 130, fp8(129 * 130, ScaleInv::F32(zeros(16))), "");
    check(129, 130, fp8(129 * 130, ScaleInv::Ue8m0(zeros(4))), "");
    check(2, 2, fp8(5, ScaleInv::F32(zeros(4))), "weight of a 2x2 FP8 matrix has 5 bytes, expected 4");
    check(
        129,
        130,
        fp8(129 * 130, ScaleInv::F32(zeros(4))),
        "weight_scale_inv of a 129x130 FP8 matrix has 4 bytes, expected 16",
    );
    check(2, 64, int4(64, 8), "");
    check(2, 64, int4(65, 8), "weight_packed of a 2x64 INT4 matrix has 65 bytes, expected 64");
    check(2, 64, int4(64, 7), "weight_scale of a 2x64 INT4 matrix has 7 bytes, expected 8");
    check(2, 512, ggml(576), "");
    check(2, 512, ggml(575), "blocks of a 2x512 Q4_K matrix has 575 bytes, expected 576");
}

#[test]
fn rows_hold_whole_blocks() {
    let int4 = Storage::Int4 { packed: zeros(20), scale: zeros(2) };
    check(1, 40, int4, "40 columns are not a multiple of the 32 numbers of a INT4 block");
    let ggml = Storage::Ggml { kind: GgmlType::Q6_K, blocks: zeros(210) };
    check(1, 288, ggml, "288 columns are not a multiple of the 256 numbers of a Q6_K block");
}

#[test]
fn a_shape_beyond_the_address_space_is_refused() {
    let huge = 1 << (usize::BITS / 2);
    check(huge, huge, Storage::F32(zeros(0)), &format!("a {huge}x{huge} matrix is too large"));
    check(huge, huge / 2, Storage::F32(zeros(0)), &format!("a {huge}x{} matrix is too large", huge / 2));
}
