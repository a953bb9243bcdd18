//! Functions of one number.

use bitpact_core::Function;
use bitpact_graph::NodeId;

use super::ReferenceBackend;
use super::value::Value;

impl ReferenceBackend {
    pub(super) fn function(&self, id: NodeId, function: Function) -> Value {
        let (x, slopes) = (self.real(self.input(id)), self.slopes(id, function));
        Value::Real(x.iter().zip(slopes.iter().cycle()).map(|(&x, &slope)| function.value(x, slope)).collect())
    }

    pub(super) fn function_backward(&mut self, id: NodeId, function: Function, g: &[f32]) -> Vec<Vec<f32>> {
        let (x, slopes) = (self.real(self.input(id)), self.slopes(id, function));
        let slope = |i: usize| slopes[i % slopes.len()];
        if function.is_learned() {
            // dy/dslope is x where it is negative.
            let mut sums = vec![0f64; slopes.len()];
            for (i, (&x, &g)) in x.iter().zip(g).enumerate() {
                sums[i % slopes.len()] += f64::from(x.min(0.0)) * f64::from(g);
            }
            let weight = self.param(id, "weight");
            self.params.get_mut(weight).grad = sums.into_iter().map(|sum| sum as f32).collect();
        }
        vec![x.iter().zip(g).enumerate().map(|(i, (&x, g))| g * function.derivative(x, slope(i))).collect()]
    }

    /// The slope of every channel.
    fn slopes(&self, id: NodeId, function: Function) -> Vec<f32> {
        match function.is_learned() {
            true => self.params.value(self.param(id, "weight")).to_vec(),
            false => vec![0.0],
        }
    }
}
