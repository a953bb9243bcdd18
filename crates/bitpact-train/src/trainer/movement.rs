//! How weight codes move from epoch to epoch.

use bitpact_model::IntegerModel;

use crate::records::WeightStatistics;

/// Weight codes of the integer networks of the last three epochs; it begins anew with every process and with other
/// bits.
#[derive(Debug, Default)]
pub(super) struct CodeHistory {
    /// Oldest first, layers in the order of the network.
    epochs: Vec<Vec<Codes>>,
}

#[derive(Debug, PartialEq)]
struct Codes {
    name: String,
    bits: u8,
    codes: Vec<i16>,
}

impl CodeHistory {
    /// Remembers the codes of an epoch's network, those of 1 to 8 bits.
    pub(super) fn add(&mut self, model: &IntegerModel) {
        let products = model.layers.iter().flat_map(|layer| layer.op.products());
        let codes = products.filter(|product| product.weight_bits <= 8).map(|product| Codes {
            name: product.name.clone(),
            bits: product.weight_bits,
            codes: product.codes.clone(),
        });
        let codes: Vec<Codes> = codes.collect();
        let fits = |last: &Vec<Codes>| {
            last.len() == codes.len()
                && last.iter().zip(&codes).all(|(a, b)| a.bits == b.bits && a.codes.len() == b.codes.len())
        };
        if !self.epochs.last().is_none_or(fits) {
            self.epochs.clear();
        }
        if self.epochs.len() == 3 {
            self.epochs.remove(0);
        }
        self.epochs.push(codes);
    }

    /// How the codes of the last epoch differ from those before; empty where there are none.
    pub(super) fn moved(&self) -> Vec<WeightStatistics> {
        let [.., before, last] = &self.epochs[..] else { return Vec::new() };
        let oldest = self.epochs.first().filter(|_| self.epochs.len() == 3);
        let of = |(i, (before, last)): (usize, (&Codes, &Codes))| {
            let share = |n: usize| Some((1e6 * n as f64 / last.codes.len().max(1) as f64).round() / 1e6);
            let changed = before.codes.iter().zip(&last.codes).filter(|(a, b)| a != b).count();
            let back = oldest.map(|oldest| {
                let codes = oldest[i].codes.iter().zip(&before.codes).zip(&last.codes);
                codes.filter(|((a, b), c)| (*b > *a && *c < *b) || (*b < *a && *c > *b)).count()
            });
            WeightStatistics { name: last.name.clone(), changed: share(changed), oscillating: back.and_then(share) }
        };
        before.iter().zip(last).enumerate().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitpact_graph::{QuantConfig, QuantPlan, Shape, zoo};
    use bitpact_model::{InputDescription, Model, convert};

    fn model(bits: &str) -> IntegerModel {
        let graph = zoo::build("cnn", Shape::new(8, 8, 3), 2).unwrap().unwrap();
        let plan = QuantPlan::resolve(&graph, &QuantConfig::new(bits.parse().unwrap())).unwrap();
        let names = vec![String::new(); 2];
        let model = Model::random(graph, plan, InputDescription::uniform(3, 128, 1.0 / 64.0), names, 1).unwrap();
        convert(&model).unwrap().model
    }

    /// The network with other first codes of its first layer.
    fn with(mut model: IntegerModel, codes: [i16; 4]) -> IntegerModel {
        let layer = model.layers.iter_mut().find(|layer| layer.op.products().next().is_some()).unwrap();
        let bitpact_model::IntegerOp::Sum(sum) = &mut layer.op else { panic!("a sum") };
        let bitpact_model::IntegerTerm::Product(product) = &mut sum.terms[0] else { panic!("a product") };
        product.codes.resize(4, 0);
        product.codes.copy_from_slice(&codes);
        model
    }

    #[test]
    fn codes_that_go_back_oscillate_and_codes_that_go_on_do_not() {
        let mut history = CodeHistory::default();
        let mut first = |codes: [i16; 4]| {
            history.add(&with(model("W4A4"), codes));
            history.moved().first().map(|moved| (moved.changed, moved.oscillating))
        };
        assert_eq!(first([1, 1, 1, 1]), None);
        assert_eq!(first([3, 3, 1, -1]), Some((Some(0.75), None)));
        // One goes on, one back, one stays where it was, one back beyond where it came from.
        assert_eq!(first([5, 1, 1, 3]), Some((Some(0.75), Some(0.5))));
        assert_eq!(first([5, 1, 1, 3]), Some((Some(0.0), Some(0.0))));
        history.add(&model("W2A2"));
        assert_eq!(history.moved(), []);
    }
}
