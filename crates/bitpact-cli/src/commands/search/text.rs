//! A search as tables, JSON and a chart.

use anyhow::Result;
use bitpact::unstable::accel::charts::{Series, SeriesLabelPosition, draw};
use bitpact::unstable::graph::BitSpec;
use bitpact::unstable::report::Sensitivity;
use bitpact::unstable::search::{Bitwidths, Choice, Limited, Part, Space};
use serde_json::{Value, json};

use crate::out::table;

/// The choices of a search with their costs and losses, to be shown.
pub(super) struct Found<'a> {
    pub(super) space: &'a Space,
    pub(super) limited: &'a [Limited],
    pub(super) sensitivity: &'a Sensitivity,
    pub(super) method: &'static str,
    pub(super) choices: Vec<Chosen>,
    pub(super) uniform: Vec<Uniform>,
}

/// The same width everywhere, to compare with.
pub(super) struct Uniform {
    pub(super) spec: BitSpec,
    pub(super) bits: Bitwidths,
    pub(super) costs: Vec<f64>,
    /// The sum of the changes of the loss.
    pub(super) loss_change: f64,
    /// Measured loss of all of them together, without training.
    pub(super) untrained: Option<f64>,
}

/// A choice with the file of its recipe.
pub(super) struct Chosen {
    pub(super) choice: Choice,
    pub(super) recipe: String,
    /// Measured loss of all widths together, without training.
    pub(super) untrained: Option<f64>,
    /// Measured seconds, where the budget is this machine's latency.
    pub(super) measured_s: Option<f64>,
}

impl Found<'_> {
    fn show(&self, k: usize, value: f64) -> String {
        self.limited[k].budget.quantity.show(value)
    }

    fn costs(&self, costs: &[f64]) -> Vec<String> {
        costs.iter().enumerate().map(|(k, &cost)| self.show(k, cost)).collect()
    }

    fn heads(&self) -> Vec<String> {
        let head = |limited: &Limited| {
            let device = limited.budget.device.as_ref().map_or(String::new(), |device| format!("@{device}"));
            limited.budget.quantity.name().to_owned() + &device
        };
        self.limited.iter().map(head).collect()
    }

    /// The tables for people.
    pub(super) fn text(&self) -> Result<String> {
        let base = self.sensitivity.base.loss;
        let mut text = format!(
            "{} on {} training images: loss {base:.4} at 8 bits everywhere; {}\n",
            self.sensitivity.network, self.sensitivity.images, self.method
        );
        for limited in self.limited {
            let shown = |value: f64| limited.budget.quantity.show(value);
            text += &format!(
                "budget {}: {} of {} to {}\n",
                limited.budget,
                shown(limited.limit),
                shown(limited.least),
                shown(limited.most)
            );
        }
        if let [only] = &self.choices[..] {
            text += &format!("\n{}", self.layers(&only.choice)?);
        }
        let mut rows = vec![["bits".to_owned()].into_iter().chain(self.heads()).collect::<Vec<_>>()];
        rows[0].extend(["predicted loss", "untrained", "recipe"].map(str::to_owned));
        let loss = |loss: Option<f64>| loss.map_or(String::new(), |loss| format!("{loss:.4}"));
        for chosen in &self.choices {
            let name = if self.choices.len() > 1 { self.short(&chosen.choice.bits) } else { "chosen".to_owned() };
            rows.push([vec![name], self.costs(&chosen.choice.costs)].concat());
            let last = rows.last_mut().expect("just pushed");
            let predicted = Some(base + chosen.choice.loss_change);
            last.extend([loss(predicted), loss(chosen.untrained), chosen.recipe.clone()]);
        }
        for one in &self.uniform {
            let losses = vec![loss(Some(base + one.loss_change)), loss(one.untrained)];
            rows.push([vec![one.spec.to_string()], self.costs(&one.costs), losses].concat());
        }
        text += &format!("\n{}", table(&rows, &[0, rows[0].len() - 1]));
        if self.choices.iter().any(|chosen| !chosen.choice.exact) {
            text += "\nthe choice is good, not proved the best\n";
        }
        for chosen in &self.choices {
            let (Some(measured), Some(predicted)) = (chosen.measured_s, self.measured_cost(&chosen.choice)) else {
                continue;
            };
            let error = 100.0 * (predicted / measured - 1.0);
            text += &format!(
                "{}: measured {:.4} ms, predicted {:.4} ms, {error:+.1} %\n",
                chosen.recipe,
                measured * 1e3,
                predicted * 1e3
            );
        }
        Ok(text)
    }

    /// The predicted seconds of this machine.
    fn measured_cost(&self, choice: &Choice) -> Option<f64> {
        let at = self.limited.iter().position(|limited| limited.budget.device.as_deref() == Some("cpu"))?;
        Some(choice.costs[at])
    }

    /// Weights and activations in the order of the graph, such as `4232/3343`.
    fn short(&self, bits: &Bitwidths) -> String {
        let of = |part: Part| -> String {
            let own = self.space.variables.iter().filter(|variable| variable.part == part);
            own.map(|variable| variable.of(bits).to_string()).collect()
        };
        format!("W{} A{}", of(Part::Weights), of(Part::Activations))
    }

    /// Every tensor with its bits, and every product with its cost.
    fn layers(&self, choice: &Choice) -> Result<String> {
        let space = self.space;
        let mut rows = vec![["layer", "tensor", "bits"].map(str::to_owned).to_vec()];
        rows[0].extend(self.heads());
        rows[0].push("loss".to_owned());
        for node in space.graph.nodes() {
            let part = match (node.op.is_product(), node.op.is_act()) {
                (true, _) => Part::Weights,
                (_, true) => Part::Activations,
                _ => continue,
            };
            let bits = match part {
                Part::Weights => choice.bits.weights.get(&node.name),
                Part::Activations => choice.bits.activations.get(&node.name),
            };
            let mut row = vec![node.name.clone(), part.to_string(), bits.map_or(String::new(), u8::to_string)];
            let product = space.products.iter().find(|product| part == Part::Weights && product.name == node.name);
            for (k, limited) in self.limited.iter().enumerate() {
                let widths = product.map(|product| (product, choice.bits.operands(&space.graph, product)));
                let cost = widths.map(|(product, widths)| limited.cost.product(product, widths)).transpose()?;
                row.push(cost.flatten().map_or(String::new(), |cost| self.show(k, cost)));
            }
            let variable = space.variables.iter().find(|variable| variable.part == part && variable.name == node.name);
            row.push(match variable {
                Some(variable) => {
                    let own = variable.of(&choice.bits);
                    let at = variable.bits.iter().position(|&bits| bits == own).unwrap_or(0);
                    format!("{:+.4}", variable.changes[at])
                }
                None => "given".to_owned(),
            });
            rows.push(row);
        }
        Ok(table(&rows, &[0, 1]))
    }

    /// One JSON object.
    pub(super) fn json(&self) -> Value {
        let base = self.sensitivity.base.loss;
        let costs = |costs: &[f64]| -> Value {
            self.heads()
                .into_iter()
                .zip(costs)
                .map(|(head, &cost)| (head, Value::from(cost)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let choices = self.choices.iter().map(|chosen| {
            json!({
                "costs": costs(&chosen.choice.costs),
                "predicted_loss": base + chosen.choice.loss_change,
                "untrained_loss": chosen.untrained,
                "exact": chosen.choice.exact,
                "weights": chosen.choice.bits.weights,
                "activations": chosen.choice.bits.activations,
                "measured_s": chosen.measured_s,
                "recipe": chosen.recipe,
            })
        });
        let uniform = self.uniform.iter().map(|one| {
            json!({
                "bits": one.spec.to_string(),
                "costs": costs(&one.costs),
                "predicted_loss": base + one.loss_change,
                "untrained_loss": one.untrained,
            })
        });
        let budgets = self.limited.iter().map(|limited| {
            json!({
                "budget": limited.budget.to_string(),
                "limit": limited.limit,
                "least": limited.least,
                "most": limited.most,
            })
        });
        json!({
            "network": self.sensitivity.network,
            "method": self.method,
            "images": self.sensitivity.images,
            "base_loss": base,
            "budgets": budgets.collect::<Vec<_>>(),
            "choices": choices.collect::<Vec<_>>(),
            "uniform": uniform.collect::<Vec<_>>(),
        })
    }

    /// The predicted loss against the first cost, as SVG.
    pub(super) fn chart(&self) -> Result<String> {
        let base = self.sensitivity.base.loss;
        let own = self.choices.iter().map(|chosen| (chosen.choice.costs[0], base + chosen.choice.loss_change));
        let own: Vec<(f64, f64)> = own.collect();
        let uniform = self.uniform.iter().map(|one| (one.costs[0], base + one.loss_change)).collect::<Vec<_>>();
        let all = || own.iter().chain(&uniform);
        let right = all().map(|point| point.0).fold(0.0, f64::max);
        let high = all().map(|point| point.1).fold(0.0, f64::max);
        let series = [
            Series { name: "chosen".to_owned(), points: own, line: true },
            Series { name: "the same width everywhere".to_owned(), points: uniform, line: false },
        ];
        let x = self.heads().swap_remove(0);
        let labels = [&*self.sensitivity.network, &*x, "predicted loss"];
        let ends = (0.0..1.05 * right, 0.0..1.05 * high);
        Ok(draw("front", labels, ends.0, ends.1, &series, (8, SeriesLabelPosition::UpperRight))?)
    }
}
