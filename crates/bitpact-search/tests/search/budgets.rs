use bitpact_search::{Budget, Cost, Limit, Limited, SearchError, Space};

use super::{bits, separable};
use bitpact_graph::QuantConfig;

fn budget(text: &str) -> Result<Budget, SearchError> {
    text.parse()
}

#[test]
fn budgets_read_as_they_print() {
    for (text, value) in [
        ("bytes=60k", 60e3),
        ("bytes=60kB", 60e3),
        ("bytes=1KiB", 1024.0),
        ("bitops=4e6", 4e6),
        ("bitops=4.5M", 4.5e6),
        ("latency=1.2ms@cpu", 1.2e-3),
        ("latency=900us@my.toml", 900e-6),
        ("energy=3.5uJ@mpic", 3.5e-6),
    ] {
        let Limit::Value(found) = budget(text).unwrap().limit else { panic!("{text}") };
        assert!((found / value - 1.0).abs() < 1e-12, "{text}: {found}");
        let again: Budget = budget(text).unwrap().to_string().parse().unwrap();
        let Limit::Value(shown) = again.limit else { panic!("{text}") };
        assert!((shown / value - 1.0).abs() < 1e-3, "{text} prints as {again}");
    }
    assert_eq!(budget("bytes=W3A3").unwrap().limit, Limit::Like("W3A3".parse().unwrap()));
    assert_eq!(budget("latency=W4A2@cpu").unwrap().to_string(), "latency=W4A2@cpu");
}

#[test]
fn bad_budgets_are_told() {
    for (text, says) in [
        ("60k", "expected a form like"),
        ("size=60k", "`size` is none of params, bytes"),
        ("bytes=", "expected a positive number"),
        ("bytes=-3k", "expected a positive number"),
        ("bytes=nan", "expected a positive number"),
        ("bytes=0", "expected a positive number"),
        ("bytes=3ms", "kB"),
        ("bytes=3k@mpic", "leave out @mpic"),
        ("latency=3ms", "latency=3ms@DEVICE"),
        ("latency=3@cpu", "ns, us, ms, s"),
        ("latency=3ms@", "a device after @"),
        ("bytes=float", "float network"),
    ] {
        let message = budget(text).unwrap_err().to_string();
        assert!(message.contains(&format!("`{text}`")) && message.contains(says), "{message}");
    }
}

#[test]
fn what_cannot_be_met_or_chosen_is_told_before_anything_is_measured() {
    let graph = separable();
    let config = QuantConfig::new("W4A4".parse().unwrap());
    let space = Space::new(&graph, &config, &bits(&[2, 4, 8])).unwrap();
    let limited = |text: &str| {
        let budget = budget(text)?;
        let cost = Cost::of(&budget, None)?;
        Limited::new(budget, cost, &space)
    };
    for (text, says) in [
        // 432 + 36 + 128 + 320 bytes at the least.
        ("bytes=900", "the least that these widths take is 916 B"),
        ("params=1k", "at every width"),
        ("macs=1M", "at every width"),
        ("latency=1s@gap8", "at every width"),
        ("latency=1s@nothing", "neither a device nor a file; there are cpu, gap8, mpic, ne16"),
        ("energy=1J@cortex-m4", "no energies"),
        ("latency=1ns@mpic", "cannot be met"),
    ] {
        let error = limited(text).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains(says), "{text}: {error}");
    }
    let found = limited("bytes=916").unwrap();
    assert_eq!((found.least, found.most), (916.0, 432.0 + 144.0 + 512.0 + 320.0));
    assert_eq!(limited("bytes=W4A4").unwrap().limit, 432.0 + 72.0 + 256.0 + 320.0);
    let three = Space::new(&graph, &config, &bits(&[2, 3])).unwrap();
    let budget = budget("latency=1s@mpic").unwrap();
    let message = Limited::new(budget.clone(), Cost::of(&budget, None).unwrap(), &three).unwrap_err().to_string();
    assert!(message.contains("mpic has no figure"), "{message}");
}
