# Every network, exported in every format and imported again, against the .bitpact file itself.
BP=$1; shift
for m in "$@"; do
  name=$(basename $m); $BP convert $m -o /tmp/bitpact-back.bitpact > /dev/null 2>&1 || cp $m /tmp/bitpact-back.bitpact
  for f in onnx-qcdq onnx-qdq qonnx onnx-integer npy safetensors; do
    rm -rf /tmp/bitpact-out; $BP export /tmp/bitpact-back.bitpact --format $f -o /tmp/bitpact-out > /dev/null && $BP import /tmp/bitpact-out -o /tmp/bitpact-again.bitpact > /dev/null && cmp -s /tmp/bitpact-back.bitpact /tmp/bitpact-again.bitpact && echo "$name $f same bytes" || echo "$name $f DIFFERS"
  done
done
