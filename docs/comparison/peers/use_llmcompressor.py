"""GPTQ of llm-compressor, in float32, with its defaults otherwise (columns in order of activation, static groups)."""
import common
import torch


def main():
    args = common.arguments()
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    rows = [{"input_ids": row.tolist(), "attention_mask": [1] * args.length} for row in common.windows(args)]
    weights = QuantizationArgs(num_bits=args.bits, type="int", symmetric=True, strategy="group", group_size=args.group)
    recipe = GPTQModifier(ignore=["lm_head"],
                          config_groups={"group_0": QuantizationScheme(targets=["Linear"], weights=weights)})
    oneshot(model=model, dataset=Dataset.from_list(rows), recipe=recipe, max_seq_length=args.length,
            num_calibration_samples=len(rows), shuffle_calibration_samples=False)
    state = model.state_dict()
    common.write_dense(args, {name: state[name] for name in common.names(args)})


if __name__ == "__main__":
    main()
