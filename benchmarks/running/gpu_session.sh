#!/usr/bin/env bash
# The measurements on a machine with GPUs, side by side: bash benchmarks/running/gpu_session.sh OUT SECONDS DATA PART...
#
#   variants            the set of variants, on GPU 0                              about 300 s, weights included
#   fixed               the set that tested what was fixed, on GPU 0               about 90 s, weights included
#   drawn               the set drawn at random, on GPU 0                          about 300 s, weights included
#   drawn_again         the second set drawn at random, on GPU 0                   about 200 s, weights included
#   caps                the boundary, on all GPUs                                  about 300 s on one
#   stages              stages on one GPU                                          about 60 s for nine of them
#   speed               fit=auto alone on GPU 1, the set from files on GPU 0       about 300 s, weights included
#   two                 cells on two GPUs                                          about 250 s
#   stages2             stages on two GPUs                                         about 250 s
#   drawn_on_two        the set drawn on two GPUs; stages, tests of shardings      about 450 s, weights included
#   drawn_on_two_again  the second set drawn on two GPUs; adapters under FSDP2     about 150 s, weights included
#   tests               tests/gpu, the matrix of regimes left out                  about 150 s
#   speed_cells         tokens/s with and without fused kernels, alone on GPU 0    about 400 s, weights included
#   fused               the set of fused kernels, beside their tests               about 200 s, weights included
#
# WEIGHTS names whose weights are made first (running/bases.py --of). All of them need 96 GB of disk, those of drawn about 55, those of variants,
# stages and caps about 60. WEIGHTS=none: speed_cells makes its own.
# Parts run one after the other, and nothing starts after SECONDS. What was measured is in OUT as it is measured, and goes on from there when the
# script is called again on the same machine, with an empty OUT too. DATA: LLaMA-Factory's demo sets.
set -u
OUT=$1 LIMIT=$2 DATA=$3
shift 3
PYTHON=${PYTHON:-python} WEIGHTS=${WEIGHTS:-from_files caps fit variants stages}
GPUS=$(nvidia-smi --list-gpus | wc -l)
KEPT=/tmp/regimen-session BASES=/tmp/regimen-session/bases RESULTS=benchmarks/results
# What runs write is short-lived: in memory where there is much, since the disk holds the weights.
WORK=/tmp/regimen-work
[ "$(df --output=avail -k /dev/shm | tail -1)" -gt 60000000 ] && WORK=/dev/shm/regimen-work
mkdir -p "$KEPT" "$WORK" "$OUT"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} HF_HUB_OFFLINE=1

left() { echo $((LIMIT > SECONDS ? LIMIT - SECONDS : 1)); }

run() { # NAME MODULE ARGUMENT...: its lines go to the log
  local name=$1
  "$PYTHON" -m "benchmarks.$2" "${@:3}" --work "$WORK/$name" 2>&1 | grep --line-buffered -v 'Writing model\|^\[transformers\]' | sed -u "s/^/$name: /" >> "$OUT/log.txt"
}

bases() { # both on GPU 0: GPU 1 must have no other work
  run bases running.bases --out "$BASES" --device cuda:0 --part 1/2 --of $WEIGHTS &
  run bases running.bases --out "$BASES" --device cuda:0 --part 2/2 --of $WEIGHTS &
}

one_gpu() { # GRID FILE
  run "$1" memory.cells measure --grid "$1" --gpus 1 --predicted "$RESULTS/memory/$2_predicted.jsonl" --out "$OUT/$2.jsonl" \
    --bases "$BASES" --devices 0 --room 132 --concurrent 13 --seconds "$(left)"
}

variants() { one_gpu variants h200_variants; }

fixed() { one_gpu fixed h200_fixed; }

drawn() { one_gpu drawn h200_drawn; }

drawn_again() { one_gpu drawn_again h200_drawn_again; }

speed() {
  run fit speed.fit --out "$OUT/h200_fit.jsonl" --bases "$BASES" --devices 1 --concurrent 6 --seconds "$(left)" &
  local fit=$!
  run one memory.cells measure --grid from_files --gpus 1 --predicted "$RESULTS/memory/h200_from_files_predicted.jsonl" --out "$OUT/h200_from_files.jsonl" \
    --bases "$BASES" --devices 0 --room 145 --concurrent 13 --seconds "$(left)" &
  wait "$fit" $!
}

speed_cells() {
  run speed speed.measure --out "$OUT/h200_speed.jsonl" --bases "$BASES/speed" --seconds "$(left)" --cell-seconds 100 --only 8b-lora/default \
    1b-lora-mixed/default 1b-full/default 8b-qlora/default 1b-full/kernels 8b-lora/by-hand 1b-lora-mixed/kernels 8b-lora/kernels
}

fused() {
  gpu_test kernels &
  local tests=$!
  one_gpu fused h200_fused
  wait "$tests"
}

two() {
  run two memory.cells measure --grid from_files --gpus 2 --predicted "$RESULTS/memory/h200x2_from_files_predicted.jsonl" --out "$OUT/h200x2_from_files.jsonl" \
    --bases "$BASES" --devices 0 1 --room 136 --concurrent 18 --cell-seconds 200 --seconds "$(left)"
}

# All at once: cells wait for each other's collectives, and for the host, more than for the GPUs. The kernels of offload are compiled beside them.
drawn_on_two() {
  local file started=()
  compile_kernels &
  for file in fsdp2 sharding; do
    gpu_test "$file" &
    started+=($!)
  done
  run two memory.cells measure --grid drawn_on_two --gpus 2 --predicted "$RESULTS/memory/h200x2_drawn_predicted.jsonl" --out "$OUT/h200x2_drawn.jsonl" \
    --bases "$BASES" --devices 0 1 --room 50 --concurrent 14 --cell-seconds 200 --seconds "$(left)" &
  started+=($!)
  until [ -d "$BASES/qwen2.5_0.5b" ]; do sleep 1; done
  stage_cells two --gpus 2 --out "$OUT/h200x2_stages.jsonl" --devices 0,1 --concurrent 5
  wait "${started[@]}"
}

# Adapters of a reference, and what the first of these sets changed.
drawn_on_two_again() {
  local started=()
  compile_kernels &
  run two memory.cells measure --grid drawn_on_two_again --gpus 2 --predicted "$RESULTS/memory/h200x2_drawn_again_predicted.jsonl" \
    --out "$OUT/h200x2_drawn_again.jsonl" --bases "$BASES" --devices 0 1 --room 95 --concurrent 18 --cell-seconds 150 --seconds "$(left)" &
  started+=($!)
  gpu_test fsdp2 &
  started+=($!)
  until [ -d "$BASES/qwen2.5_0.5b" ]; do sleep 1; done
  stage_cells two --gpus 2 --out "$OUT/h200x2_stages2.jsonl" --devices 0,1 --concurrent 3 \
    --only qwen2.5_0.5b/dpo/lora/fsdp2 qwen2.5_0.5b/dpo/qlora4/fsdp2 qwen2.5_0.5b/kto/qlora4/fsdp2
  wait "${started[@]}"
}

compile_kernels() {
  "$PYTHON" -c 'from deepspeed.ops.op_builder import CPUAdamBuilder; CPUAdamBuilder().load()' >> "$OUT/kernels.txt" 2>&1
}

gpu_test() { # FILE
  timeout "$(left)" "$PYTHON" -m pytest "tests/gpu/test_$1.py" -q -rA -p no:cacheprovider >> "$OUT/test_$1.txt" 2>&1
}

caps() {
  run caps memory.caps --out "$OUT/h200_caps3.jsonl" --earlier "$RESULTS"/memory/h200_caps*.jsonl --bases "$BASES" \
    --devices $(seq 0 $((GPUS - 1))) --room 134 --concurrent $((7 * GPUS)) --seconds "$(left)"
}

stages() {
  stage_cells one --gpus 1 --out "$OUT/h200_stages2.jsonl" --devices 0 --concurrent 9
}

stages2() {
  stage_cells two --gpus 2 --out "$OUT/h200x2_stages.jsonl" --devices 0,1 --concurrent 7
}

stage_cells() { # NAME ARGUMENT...
  "$PYTHON" -m benchmarks.stages.stage_cells "${@:2}" --data "$DATA" --bases "$BASES" --earlier "$RESULTS"/stages/h200_stages*.jsonl --seconds "$(left)" \
    --cell-seconds 240 --output "$WORK/stages-$1" 2>&1 | sed -u "s/^/stages $1: /" >> "$OUT/log.txt"
}

tests() {
  timeout "$(left)" "$PYTHON" -m pytest tests/gpu -q -p no:cacheprovider --ignore tests/gpu/test_regimes.py >> "$OUT/tests.txt" 2>&1
}

keep() { # whole lines of $1 in $2
  for file in "$1"/*.jsonl; do
    [ -f "$file" ] && sed -n '/}$/p' "$file" > "$2/${file##*/}"
  done
}

ls "$OUT"/*.jsonl > /dev/null 2>&1 || keep "$KEPT" "$OUT"
while sleep 3; do keep "$OUT" "$KEPT"; done &
keeper=$!
[ "$WEIGHTS" = none ] || bases
for part in "$@"; do
  echo "$part begins at $SECONDS s" >> "$OUT/log.txt"
  "$part"
done
kill "$keeper"
keep "$OUT" "$KEPT"
echo "ended at $SECONDS s" >> "$OUT/log.txt"
