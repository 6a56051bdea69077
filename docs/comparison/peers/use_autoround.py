"""AutoRound with its defaults (200 steps per block) but for bits, group, symmetry and the calibration tokens."""
import common
import torch


def main():
    args = common.arguments()
    from auto_round import AutoRound
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    rows = [{"input_ids": torch.from_numpy(row)[None], "attention_mask": torch.ones(1, args.length, dtype=torch.int64)}
            for row in common.windows(args)]
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(args.model / "tokenizer.json"))
    rounder = AutoRound(model, tokenizer, bits=args.bits, group_size=args.group, sym=True, dataset=rows,
                        nsamples=len(rows), seqlen=args.length, device_map="cpu", amp=False)
    model, _ = rounder.quantize()
    state = model.state_dict()
    common.write_dense(args, {name: state[name] for name in common.names(args)})


if __name__ == "__main__":
    main()
