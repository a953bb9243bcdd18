//! Files that PyTorch wrote (tests/data/make.py), and files that nobody should open.

mod common;

use std::io::Write;
use std::path::Path;

use bitpact_interop::weights::Weights;
use bitpact_interop::{ImportOptions, import};
use common::{dict, int, state_dict, text, view, zip};
use proptest::prelude::*;

fn data(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)).unwrap()
}

fn read(bytes: &[u8]) -> Result<Weights, String> {
    Weights::from_bytes(bytes, "net.pth").map_err(|error| error.to_string())
}

#[track_caller]
fn refused(bytes: &[u8], parts: &[&str]) {
    let error = read(bytes).unwrap_err();
    assert!(error.starts_with("net.pth: "), "{error}");
    for part in parts {
        assert!(error.contains(part), "no {part:?} in: {error}");
    }
}

/// A zip archive with this pickle and one storage of four numbers.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let numbers: Vec<u8> = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    zip(&[("net/data.pkl", pickle), ("net/data/0", &numbers)])
}

#[test]
fn tensors_of_every_type_and_stride_are_read_from_both_formats() {
    let whole: Vec<f32> = (0..24).map(|v| v as f32).collect();
    let transposed: Vec<f32> = (0..24).map(|i| (i % 4 * 6 + i / 4) as f32).collect();
    let expected: Vec<(&str, Vec<usize>, Vec<f32>)> = vec![
        ("whole", vec![2, 3, 4], whole),
        ("transposed", vec![6, 4], transposed),
        ("sliced", vec![2, 3], vec![8.0, 9.0, 10.0, 14.0, 15.0, 16.0]),
        ("scalar", vec![], vec![-1.5]),
        ("empty", vec![0, 3], vec![]),
        ("half", vec![2], vec![1.5, -0.25]),
        ("bfloat", vec![2], vec![1.5, -0.25]),
        ("double", vec![1], vec![0.1]),
        ("long", vec![2], vec![-7.0, (1u64 << 40) as f32]),
        ("byte", vec![1], vec![200.0]),
        ("flags", vec![2], vec![1.0, 0.0]),
        ("parameter", vec![1], vec![3.0]),
    ];
    for file in ["new.pth", "old.pth"] {
        let found = read(&data(file)).unwrap().tensors;
        let found: Vec<_> = found.iter().map(|(name, t)| (name.as_str(), t.shape.clone(), t.data.clone())).collect();
        assert_eq!(found, expected, "{file}");
    }
}

#[test]
fn state_dicts_are_found_in_checkpoints_of_training_programs_and_lose_their_prefixes() {
    let names = ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"];
    for file in ["training.pth", "training.th", "protocol3.pth", "protocol4.pth", "protocol5.pth"] {
        let weights = read(&data(file)).unwrap();
        assert_eq!(weights.tensors.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), names, "{file}");
        assert_eq!(weights.tensors[0].1.shape, [2, 1, 3, 3], "{file}");
    }
    let one = || view("0", 4, 0, &[4], &[1]);
    let inner = |name: &str| {
        let pickle = dict(&[(name, one())]);
        pickle[2..pickle.len() - 1].to_vec()
    };
    let names = |items: &[(&str, Vec<u8>)]| {
        let weights = read(&archive(&dict(items))).unwrap();
        (weights.tensors.into_iter().map(|(name, _)| name).collect::<Vec<_>>(), weights.notes)
    };
    for key in ["state_dict", "model", "net", "ema", "model_state_dict", "state_dict_ema"] {
        assert_eq!(names(&[("epoch", int(3)), (key, inner("_orig_mod.module.fc.bias"))]).0, ["fc.bias"], "{key}");
    }
    let (found, notes) = names(&[("state_dict_ema", inner("b")), ("state_dict", inner("model.a"))]);
    assert_eq!(found, ["a"]);
    assert!(notes[0].contains("`state_dict` are taken, the averages under `state_dict_ema` are not"), "{notes:?}");
    refused(&archive(&dict(&[("module.a", one()), ("a", one())])), &["tensor `a` stands twice"]);
    refused(&archive(&dict(&[("epoch", int(3)), ("rate", int(4))])), &["no tensors", "epoch, rate", "state_dict"]);
}

#[test]
fn what_a_pickle_would_run_is_named_and_not_run() {
    for (bytes, name) in [
        (archive(b"cposix\nsystem\n(S'id'\ntR."), "`posix.system`"),
        (archive(b"\x80\x02cbuiltins\neval\nX\x01\0\0\x001\x85R."), "`builtins.eval`"),
        (archive(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R."), "`os.system`"),
        (archive(b"\x80\x02ctorch._utils\n_rebuild_qtensor\n."), "`torch._utils._rebuild_qtensor`"),
        (archive(b"\x80\x02ctorch\nload\n."), "`torch.load`"),
        (archive(b"(S'id'\nios\nsystem\n."), "INST"),
        (archive(b"\x80\x02ccollections\nOrderedDict\n)\x81."), "NEWOBJ"),
        (archive(b"\x80\x02\x82\x01."), "EXT"),
        (b"cposix\nsystem\n(S'id'\ntR.".to_vec(), "`posix.system`"),
        (b"\x80\x02cposix\nsystem\nX\x02\0\0\0id\x85R.".to_vec(), "`posix.system`"),
    ] {
        refused(&bytes, &[name, "not admitted", "nothing is run", "torch.save(model.state_dict()"]);
    }
    refused(&data("module.pth"), &["`torch.nn.modules.container.Sequential` is not admitted", "state_dict"]);
    refused(&data("arguments.pth"), &["`argparse.Namespace` is not admitted"]);
    // A name is no way to a terminal either.
    refused(&archive(b"c\x1b[31m\nx\n."), &[r"`\u{1b}[31m.x`"]);
}

#[test]
fn objects_that_do_not_fit_together_are_refused_with_their_place() {
    let tensor = view("0", 4, 0, &[4], &[1]);
    let cases: &[(&[u8], &str)] = &[
        (b"", "1 bytes are promised, and 0 are left"),
        (b"\x80\x09.", "protocol 9"),
        (b".", "a value is needed"),
        (b"t.", "a mark is needed"),
        (b"K\x01K\x02a.", "a number is there"),
        (b"}K\x02a.", "no list"),
        (b"](K\x01u.", "a key that has no value"),
        (b"h\x05.", "place 5 of the memo is empty"),
        (b"X\xff\xff\xff\xffab", "4294967295 bytes are promised, and 2 are left"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffab", "bytes are promised"),
        (b"K\x01)R.", "no function"),
        (b"ctorch\nFloatStorage\n)R.", "without the numbers"),
        (b"K\x01Q.", "no storage"),
        (b"I12x\n.", "expected a number"),
        (b"cab", "a line without an end"),
        (b"\x00", "0x00 is no opcode"),
        (b"]K\x01b.", "no dict"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R.", "a tensor needs storage"),
        (b"\x80\x02C\x03abc.", "bytes of Python"),
    ];
    for (pickle, part) in cases {
        refused(&archive(pickle), &["of the pickle: ", part]);
    }
    refused(&archive(&[b"\x80\x02".as_slice(), &tensor, b"."].concat()), &["no dict of tensors"]);
    // A list that holds itself is none of the machine's business.
    refused(&archive(b"]q\x00h\x00a."), &["no dict of tensors"]);
}

#[test]
fn tensors_beyond_their_storage_and_claims_of_size_are_refused() {
    let huge = 1 << 30;
    for (tensor, part) in [
        (view("0", 4, 0, &[5], &[1]), "beyond a storage of 4"),
        (view("0", 4, 2, &[3], &[1]), "beyond a storage of 4"),
        (view("0", 4, 0, &[2, 2], &[3, 1]), "beyond a storage of 4"),
        (view("0", 4, 0, &[huge, huge, huge], &[huge, huge, huge]), "beyond a storage of 4"),
        (view("0", 4, 0, &[huge, huge, huge], &[0, 0, 0]), "beyond a storage of 4"),
        // Four bytes that stand for as many as one likes.
        (view("0", 4, 0, &[huge], &[0]), "more numbers than a file of"),
        (view("0", huge, 0, &[huge], &[1]), "has 16 bytes, 1073741824 numbers of 4 bytes are claimed"),
        (view("1", 4, 0, &[4], &[1]), "its storage `1` is not in the file"),
        (view("0", 4, 0, &[1; 9], &[1; 9]), "at most 8 numbers"),
        (view("0", 4, 0, &[2, 2], &[1]), "2 sizes and 1 strides"),
    ] {
        refused(&archive(&dict(&[("w", tensor)])), &[part]);
    }
    let of_zero = read(&archive(&dict(&[("w", view("0", 4, 1, &[2, 3], &[1, 0]))]))).unwrap();
    assert_eq!(of_zero.tensors[0].1.data, [2.0, 2.0, 2.0, 3.0, 3.0, 3.0], "a stride of 0 repeats");
    // What PyTorch wrote before 0.4.
    let current = view("0", 4, 1, &[2], &[2]);
    let end = current.windows(2).position(|w| w == b"\x89c").unwrap();
    let older =
        [b"ctorch._utils\n_rebuild_tensor\n", &current[b"ctorch._utils\n_rebuild_tensor_v2\n".len()..end], b"tR"];
    assert_eq!(read(&archive(&dict(&[("w", older.concat())]))).unwrap().tensors[0].1.data, [2.0, 4.0]);
    // Many tensors of one storage.
    let items: Vec<(String, Vec<u8>)> = (0..2000).map(|i| (format!("w{i}"), view("0", 4, 0, &[400], &[0]))).collect();
    let items: Vec<(&str, Vec<u8>)> = items.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
    refused(&archive(&dict(&items)), &["its tensors overlap"]);
}

#[test]
fn archives_that_are_none_or_lie_are_refused() {
    let good = state_dict([("w", &bitpact_model::Tensor::full(&[3], 0.5))]);
    assert_eq!(read(&good).unwrap().tensors[0].1.data, [0.5; 3]);
    for cut in [1, 30, good.len() / 2, good.len() - 1] {
        refused(&good[..cut.max(4)], &["zip archive"]);
    }
    refused(&zip(&[("net/weights", b"x")]), &["without `data.pkl`"]);
    refused(&zip(&[("net/data.pkl", b"}."), ("net/constants.pkl", b")."), ("net/code/a.py", b"")]), &["TorchScript"]);
    refused(&zip(&[("net/data.pkl", b"}."), ("net/byteorder", b"big")]), &["not little-endian"]);
    // The size of `data.pkl` in the central directory, made larger than the file.
    let mut lies = good.clone();
    let at = lies.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
    lies[at + 20..at + 28].fill(0x7f);
    refused(&lies, &["net.pth: "]);
}

#[test]
fn older_files_that_are_cut_off_or_lie_are_refused() {
    let good = data("old.pth");
    for cut in [1, 2, 13, 20, 200, good.len() / 2, good.len() - 1] {
        read(&good[..cut]).unwrap_err();
    }
    refused(&good[..good.len() - 1], &["is cut off"]);
    refused(b"\x80\x02}q\x00.", &["a pickle, but not of torch.save"]);
    // The count of numbers of the last storage.
    let mut lies = good.clone();
    let end = lies.len();
    lies[end - 12..end - 4].copy_from_slice(&u64::MAX.to_le_bytes());
    read(&lies).unwrap_err();
}

#[test]
fn a_pickle_of_nothing_but_objects_ends() {
    refused(&archive(&vec![b']'; (1 << 20) + 1]), &["more than 1048576"]);
    refused(&archive(&vec![b'('; (1 << 20) + 1]), &["more than 1048576"]);
    // Each OrderedDict is a copy of the list before it.
    let copies = [
        &b"](K\x01K\x02\x86"[..],
        &b"2".repeat(1000),
        b"eq\x00",
        &b"0ccollections\nOrderedDict\nh\x00\x85R".repeat(3000),
        b".",
    ]
    .concat();
    refused(&archive(&copies), &["more than 1048576"]);
}

#[test]
fn two_gigabytes_of_nothing_are_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for (name, head) in [("a.pth", &b""[..]), ("b.pth", b"\x80\x02"), ("c.pth", b"PK\x03\x04"), ("d.safetensors", b"")]
    {
        let path = folder.path().join(name);
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(head).unwrap();
        file.set_len(2 << 30).unwrap();
        let error = import(&path, &ImportOptions::default()).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}

/// Bytes with the opcodes of a pickle among them.
fn pickle_like() -> impl Strategy<Value = Vec<u8>> {
    let opcodes = b"\x80\x95.(012NIJKLMFGSVXTU]})tldaesupgqhrjcRbQ\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x93\x94\n";
    let piece = prop_oneof![
        8 => prop::sample::select(opcodes.to_vec()).prop_map(|opcode| vec![opcode]),
        2 => any::<u8>().prop_map(|byte| vec![byte]),
        1 => Just(b"ccollections\nOrderedDict\n".to_vec()),
        1 => Just(view("0", 4, 0, &[2], &[1])),
        1 => Just(text("state_dict")),
    ];
    prop::collection::vec(piece, 0..80).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), pickle in pickle_like()) {
        let _ = read(&bytes);
        let _ = read(&[b"\x80\x02".as_slice(), &pickle].concat());
        let _ = read(&archive(&pickle));
    }

    #[test]
    fn no_damage_makes_the_reader_panic(file in 0..3usize, flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = data(["new.pth", "old.pth", "training.th"][file]);
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = read(&bytes);
    }
}
