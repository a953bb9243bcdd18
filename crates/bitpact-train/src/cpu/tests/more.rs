//! Networks with residual streams, average pools, concatenations and dropout.

use bitpact_graph::Graph;

/// Streams that begin with a convolution, are added to, subsampled, projected, begun by codes, concatenated; read by
/// several batch norms, and by an activation without one.
pub(super) fn streams() -> Graph {
    super::graph(
        r#"{"name":"streams","nodes":[{"name":"in","op":"input","height":8,"width":6,"channels":3},
        {"name":"c1","op":"conv","out_channels":5,"kernel":3,"padding":1},
        {"name":"n1","op":"batch_norm"},{"name":"a1","op":"act"},
        {"name":"c2","op":"conv","out_channels":5,"kernel":3,"padding":1},{"name":"n2","op":"batch_norm"},{"name":"a2","op":"act"},
        {"name":"c3","op":"conv","out_channels":5,"kernel":3,"padding":1,"bias":true},{"name":"s1","op":"add","inputs":["c3","c1"]},
        {"name":"n3","op":"batch_norm"},{"name":"a3","op":"act"},
        {"name":"c4","op":"conv","out_channels":8,"kernel":3,"stride":2,"padding":1},{"name":"n4","op":"batch_norm"},{"name":"a4","op":"act"},
        {"name":"c5","op":"conv","out_channels":8,"kernel":1},
        {"name":"sub","op":"subsample","stride":2,"pad_before":1,"pad_after":2,"inputs":["s1"]},
        {"name":"s2","op":"add","inputs":["sub","c5"]},
        {"name":"n5","op":"batch_norm"},{"name":"a5","op":"act"},
        {"name":"c6","op":"conv","out_channels":6,"kernel":3,"padding":1},{"name":"n6","op":"batch_norm"},{"name":"a6","op":"act"},
        {"name":"c7","op":"conv","out_channels":6,"kernel":1},{"name":"n7","op":"batch_norm"},
        {"name":"cs","op":"conv","out_channels":6,"kernel":1,"inputs":["a5"]},
        {"name":"s3","op":"add","inputs":["n7","cs"]},
        {"name":"n8","op":"batch_norm"},{"name":"a8","op":"act","signed":true},
        {"name":"c9","op":"conv","out_channels":6,"kernel":3,"padding":1},{"name":"s4","op":"add","inputs":["c9","a8"]},
        {"name":"c10","op":"conv","out_channels":4,"kernel":1,"inputs":["a8"]},
        {"name":"a11","op":"act","signed":true,"inputs":["s3"]},
        {"name":"c11","op":"conv","out_channels":3,"kernel":1},{"name":"n11","op":"batch_norm"},
        {"name":"cat","op":"concat","inputs":["s4","c10","n11"]},
        {"name":"n12","op":"batch_norm"},{"name":"a12","op":"act"},
        {"name":"pool","op":"global_avg_pool"},{"name":"fc","op":"linear","out_features":5}]}"#,
    )
}

/// Average pools of signed codes with padding, read by convolutions and by an activation; activations that share their
/// clip value; dropout of codes and of a pool.
pub(super) fn pools() -> Graph {
    super::graph(
        r#"{"name":"pools","nodes":[{"name":"in","op":"input","height":7,"width":8,"channels":3},
        {"name":"c1","op":"conv","out_channels":6,"kernel":3,"padding":1},{"name":"n1","op":"batch_norm"},
        {"name":"a1","op":"act","signed":true},
        {"name":"ap","op":"avg_pool","kernel":3,"stride":2,"padding":1},
        {"name":"c2","op":"conv","out_channels":5,"kernel":1},{"name":"n2","op":"batch_norm"},{"name":"a2","op":"act"},
        {"name":"c3","op":"conv","out_channels":4,"kernel":3,"padding":1,"inputs":["ap"]},{"name":"n3","op":"batch_norm"},
        {"name":"a3","op":"act"},
        {"name":"mp3","op":"max_pool","kernel":3,"stride":1,"padding":1},
        {"name":"cat","op":"concat","inputs":["a2","mp3"]},
        {"name":"drop1","op":"dropout","rate":0.25},
        {"name":"c4","op":"conv","out_channels":18,"kernel":3,"padding":1},{"name":"n4","op":"batch_norm"},{"name":"a4","op":"act"},
        {"name":"cat2","op":"concat","inputs":["cat","a4","a2"]},
        {"name":"ap2","op":"avg_pool","kernel":2,"stride":2},
        {"name":"n5","op":"batch_norm"},{"name":"a5","op":"act"},
        {"name":"c6","op":"conv","out_channels":7,"kernel":2},{"name":"n6","op":"batch_norm"},{"name":"a6","op":"act"},
        {"name":"pool","op":"global_avg_pool"},{"name":"drop2","op":"dropout","rate":0.5},
        {"name":"fc","op":"linear","out_features":5}]}"#,
    )
}
