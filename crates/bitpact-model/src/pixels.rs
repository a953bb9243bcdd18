//! What a pixel means to a network of another program.

use crate::InputDescription;

/// Mean and standard deviation of pixels from 0 to 1, as PyTorch's `Normalize` takes them: `x = (p / 255 - mean) /
/// std`. One number stands for all channels.
#[derive(Debug, Clone, PartialEq)]
pub struct Pixels {
    /// The pixel that means 0, divided by 255, per channel.
    pub mean: Vec<f64>,
    /// Standard deviation of each channel, which divides what is left when its mean is taken away.
    pub std: Vec<f64>,
}

impl Pixels {
    /// Every name that [`Pixels::named`] knows.
    pub const NAMES: [&'static str; 5] = ["imagenet", "cifar10", "half", "unit", "raw255"];

    /// The meaning called `name`: that of torchvision's ImageNet networks, CIFAR-10's own mean and deviation, -1 to 1,
    /// 0 to 1, or 0 to 255.
    pub fn named(name: &str) -> Option<Self> {
        let (mean, std): (&[f64], &[f64]) = match name {
            "imagenet" => (&[0.485, 0.456, 0.406], &[0.229, 0.224, 0.225]),
            "cifar10" => (&[0.4914, 0.4822, 0.4465], &[0.2470, 0.2435, 0.2616]),
            "half" => (&[0.5], &[0.5]),
            "unit" => (&[0.0], &[1.0]),
            "raw255" => (&[0.0], &[1.0 / 255.0]),
            _ => return None,
        };
        Some(Self { mean: mean.to_vec(), std: std.to_vec() })
    }

    /// The meaning that `text` says: one of [`Pixels::NAMES`], or mean and deviation with a slash between them, each a
    /// number or one a channel with commas, such as `0.5,0.4,0.4/0.2`.
    ///
    /// # Errors
    /// A text of another form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let numbers = |text: &str| text.split(',').map(|n| n.trim().parse().ok()).collect::<Option<Vec<f64>>>();
        let pair =
            || text.split_once('/').and_then(|(mean, std)| Some(Self { mean: numbers(mean)?, std: numbers(std)? }));
        Self::named(text)
            .or_else(pair)
            .ok_or_else(|| format!("expected {}, or mean and deviation such as 0.5/0.25", Self::NAMES.join(", ")))
    }

    /// The name of what most networks of other programs read: `imagenet` of three channels, `unit` of others.
    pub fn usual(channels: usize) -> &'static str {
        if channels == 3 { "imagenet" } else { "unit" }
    }

    /// Zero point and scale of each of `channels` channels. The zero point is the pixel next to `255 mean`.
    ///
    /// # Errors
    /// Numbers for another count of channels, a mean outside 0 to 1 or a deviation that is not positive.
    pub fn describe(&self, channels: usize) -> Result<InputDescription, String> {
        let (mean, std) = (spread(&self.mean, channels, "mean")?, spread(&self.std, channels, "standard deviation")?);
        if let Some(mean) = mean.iter().find(|mean| !(0.0..=1.0).contains(*mean)) {
            return Err(format!("{mean} as mean, expected a number from 0 to 1: pixels are divided by 255"));
        }
        if let Some(std) = std.iter().find(|std| !(1e-6..=1e6).contains(*std)) {
            return Err(format!("{std} as standard deviation, expected a number from 1e-6 to 1e6"));
        }
        Ok(InputDescription::pixels(
            mean.iter().map(|mean| (255.0 * mean).round_ties_even() as u8).collect(),
            std.iter().map(|std| (1.0 / (255.0 * std)) as f32).collect(),
        ))
    }
}

/// A number for each of `channels` channels.
fn spread(values: &[f64], channels: usize, what: &str) -> Result<Vec<f64>, String> {
    match values {
        [one] => Ok(vec![*one; channels]),
        all if all.len() == channels => Ok(all.to_vec()),
        all => Err(format!("{} numbers as {what}, expected 1 or {channels}, one a channel", all.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::Pixels;

    #[test]
    fn means_and_deviations_become_zero_points_and_scales() {
        let imagenet = Pixels::named("imagenet").unwrap().describe(3).unwrap();
        assert_eq!(imagenet.zero_point, [124, 116, 104]);
        assert_eq!(imagenet.scale[1], (1.0 / (255.0 * 0.224)) as f32);
        let raw = Pixels::named("raw255").unwrap().describe(2).unwrap();
        assert_eq!((raw.zero_point, raw.scale), (vec![0, 0], vec![1.0, 1.0]));
        for name in Pixels::NAMES {
            Pixels::named(name).unwrap().describe(3).unwrap();
        }
        let wrong = |mean: f64, std: f64| Pixels { mean: vec![mean; 2], std: vec![std] }.describe(2).unwrap_err();
        assert!(wrong(127.0, 1.0).contains("divided by 255"));
        assert!(wrong(0.5, 0.0).contains("1e-6"));
        let parsed = Pixels::parse("0.5,0.4, 0.3/0.25").unwrap();
        assert_eq!((parsed.mean, parsed.std), (vec![0.5, 0.4, 0.3], vec![0.25]));
        assert_eq!(Pixels::parse("unit").unwrap(), Pixels::named("unit").unwrap());
        assert!(Pixels::parse("0.5").unwrap_err().contains("imagenet"));
        assert!(Pixels::named("imagenet").unwrap().describe(1).unwrap_err().contains("3 numbers as mean"));
    }
}
