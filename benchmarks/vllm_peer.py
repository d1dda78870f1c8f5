"""Runs in vLLM's own interpreter: reads a workload a line, generates it, answers with the number of tokens."""

import json
import os
import sys

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")
# One process: with several, the executor's watchdog takes the pause between two turns for a failure.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")


def main() -> None:
    """Load the model named on the command line, say so, and serve until the input ends. Options of vLLM's may follow
    the name, in JSON.
    """
    from vllm import LLM, SamplingParams, TokensPrompt

    options = {"dtype": "float32", "max_model_len": 2048, "max_num_seqs": 48} | json.loads([*sys.argv, "{}"][2])
    llm = LLM(sys.argv[1], **options)
    print("tokens 0", flush=True)
    for line in sys.stdin:
        work = json.loads(line)
        prompts = [TokensPrompt(prompt_token_ids=ids) for ids, _ in work]
        params = [SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True) for _, tokens in work]
        outputs = llm.generate(prompts, params, use_tqdm=False)
        print("tokens", sum(len(output.outputs[0].token_ids) for output in outputs), flush=True)


if __name__ == "__main__":
    main()
