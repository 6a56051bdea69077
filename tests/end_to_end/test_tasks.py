"""Zero-shot tasks: rows of tests/data/tasks, and lm-evaluation-harness' own output for other rows (SNRQ_SHARED).

Truth for the former: the harness's definitions written down once more in Python, and tests/data/forward_reference.py on
whole sequences, each by itself.
"""
import json
import math
import os
import re
import sys

import helpers
import numpy as np

sys.path.insert(0, helpers.DATA)
from forward_reference import Model  # pylint: disable=wrong-import-position

ROWS = os.path.join(helpers.DATA, "tasks")
SIX = "arc_easy,arc_challenge,boolq,hellaswag,piqa,winogrande"
ALL = SIX + ",openbookqa,lambada_openai,wikitext"
CONTEXT = 512  # of the bundled model


def read(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f.read().split("\n") if line]


def pp(text):
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def detokenize(text):
    for old, new in ((" @-@ ", "-"), (" @,@ ", ","), (" @.@ ", "."), (" : ", ": "), (" . ", ". "), (" , ", ", ")):
        text = text.replace("s '", "s'").replace(old, new)
    text = re.sub(r"\(\s*([^\)]*?)\s*\)", r"(\1)", text)
    text = re.sub(r'"\s*([^"]*?)\s*"', r'"\1"', text)
    text = re.sub(r"'\s*([^']*?)\s*'", r"'\1'", text)
    return text.replace(" \n", "\n").replace("\n ", "\n").replace(" 's", "'s")


def requests(task, row):
    """(context, continuation) of a row, for the tasks with such."""
    if task.startswith("arc"):
        return [("Question: %s\nAnswer:" % row["question"], " " + c) for c in row["choices"]["text"]]
    if task == "openbookqa":
        return [(row["question_stem"], " " + c) for c in row["choices"]["text"]]
    if task == "boolq":
        return [("%s\nQuestion: %s?\nAnswer:" % (row["passage"], row["question"]), c) for c in (" no", " yes")]
    if task == "piqa":
        return [("Question: %s\nAnswer:" % row["goal"], " " + row[k]) for k in ("sol1", "sol2")]
    if task == "hellaswag":
        query = pp(row["activity_label"] + ": " + row["ctx_a"] + " " + row["ctx_b"].capitalize())
        return [(query, " " + pp(e)) for e in row["endings"]]
    if task == "winogrande":
        k = row["sentence"].index("_")
        return [(row["sentence"][:k] + row[o], " " + row["sentence"][k + 1:].strip()) for o in ("option1", "option2")]
    words = row["text"].split(" ")
    return [(" ".join(words[:-1]), " " + words[-1])]


class Tasks(helpers.Test):
    def encode(self, texts):
        """The ids of texts, without BOS."""
        with open(self.path("texts.jsonl"), "w", encoding="utf-8") as f:
            for text in texts:
                f.write(json.dumps({"text": text}) + "\n")
        helpers.succeed("tokenize", helpers.MODEL, "--text", self.path("texts.jsonl"), "-o", self.path("ids"))
        ids = np.fromfile(self.path("ids"), dtype="<i4").tolist()
        starts = [i for i, token in enumerate(ids) if token == 1] + [len(ids)]
        return {text: ids[a + 1:b] for text, a, b in zip(texts, starts, starts[1:])}

    @staticmethod
    def score(model, ids, scored):
        """The sum of the last `scored` log-probabilities of a sequence."""
        log_p = model.log_p(ids)
        return sum(log_p[i, ids[i + 1]] for i in range(len(ids) - 1 - scored, len(ids) - 1))

    def expected(self, model, known, context, continuation, bos):
        first = known[context.rstrip()] if context else [1]
        whole = known[context + continuation] if context else [1] + known[continuation]
        if context:
            first, whole = [1] * bos + first, [1] * bos + whole
        return self.score(model, whole[-(CONTEXT + 1):], len(whole) - len(first))

    def run_tasks(self, tasks, directory=ROWS, *words, model=helpers.MODEL, **how):
        result = helpers.succeed("evaluate", model, "--tasks", tasks, "--task-dir", directory, "--samples",
                                 self.path("samples"), "--json", *words, **how)
        found = {}
        for line in read(self.path("samples")):
            found.setdefault(line["task"], []).append(line)
        return result.json(), found

    def test_scores_are_those_of_whole_sequences(self):
        model = Model(helpers.MODEL)
        _, with_bos = self.run_tasks(ALL, ranks=2)
        _, without = self.run_tasks(ALL, ROWS, "--task-bos", "off")
        asked = [(task, number, k, request) for task in ALL.split(",")[:-1]
                 for number, row in enumerate(read(os.path.join(ROWS, task + ".jsonl")))
                 for k, request in enumerate(requests(task, row))]
        self.assertEqual(len(asked), 3 + 5 + 4 + 4 + 4 + 8 + 4 + 4 + 3)
        known = self.encode(sorted({text for *_, (c, w) in asked for text in (c.rstrip(), c + w) if text}))
        for task, number, k, request in asked:
            for bos, found in ((True, with_bos), (False, without)):
                expected = self.expected(model, known, *request, bos)
                self.assertAlmostEqual(found[task][number]["ll"][k], expected, delta=1e-4, msg=(task, request, bos))

    def test_a_rolling_text_is_scored_in_windows(self):
        model = Model(helpers.MODEL)
        page = read(os.path.join(ROWS, "wikitext.jsonl"))[0]["page"]
        ids = [1] + self.encode([detokenize(page)])[detokenize(page)]
        self.assertGreater(len(ids), CONTEXT + 2)
        self.assertLessEqual(len(ids), 2 * CONTEXT)
        expected = (self.score(model, ids[:CONTEXT + 1], CONTEXT) +
                    self.score(model, ids[-(CONTEXT + 1):], len(ids) - CONTEXT - 1))
        answer, found = self.run_tasks("wikitext")
        line = found["wikitext"][0]
        self.assertAlmostEqual(line["loglikelihood"], expected, delta=1e-3)
        self.assertEqual(line["words"], len(re.split(r"\s+", page)))
        self.assertEqual(line["bytes"], len(page.encode()))
        self.assertAlmostEqual(math.log(answer["tasks"]["wikitext"]["word_perplexity"]), -line["loglikelihood"] / line["words"])
        self.assertNotIn("word_perplexity_stderr", answer["tasks"]["wikitext"])

    def test_decisions_and_figures_follow_from_the_scores(self):
        answer, found = self.run_tasks(SIX)
        values = []
        for task in SIX.split(","):
            rows = read(os.path.join(ROWS, task + ".jsonl"))
            hits = {"acc": [], "acc_norm": []}
            for row, line in zip(rows, found[task]):
                lengths = [len(c) - 1 for _, c in requests(task, row)]
                best = {"acc": int(np.argmax(line["ll"])), "acc_norm": int(np.argmax(np.array(line["ll"]) / lengths))}
                self.assertEqual(line["pred_acc"], best["acc"])
                if "length" in line:
                    self.assertEqual(line["length"], lengths)
                    self.assertEqual(line["pred_acc_norm"], best["acc_norm"])
                for key, choice in best.items():
                    hits[key].append(float(choice == line["gold"]))
            figures = answer["tasks"][task]
            self.assertEqual(figures["n"], len(rows))
            keys = ["acc"] + ["acc_norm"] * (task not in ("boolq", "winogrande"))
            for key in keys:
                self.assertAlmostEqual(figures[key], np.mean(hits[key]))
                if len(rows) > 1:
                    self.assertAlmostEqual(figures[key + "_stderr"], np.std(hits[key], ddof=1) / len(rows)**0.5)
            self.assertEqual("acc_norm" in figures, "acc_norm" in keys)
            values.append(figures[keys[-1]])
        self.assertAlmostEqual(answer["average_of_six"], np.mean(values))
        self.assertEqual(answer["average_of_six_as_printed"], round(sum(round(v, 4) for v in values) / 6, 4))

    def test_gold_is_what_the_row_says(self):
        _, found = self.run_tasks(SIX + ",openbookqa")
        golds = {task: [line["gold"] for line in lines] for task, lines in found.items()}
        self.assertEqual(golds, {"arc_easy": [0, 4], "arc_challenge": [0], "openbookqa": [0], "boolq": [1, 0],
                                 "hellaswag": [0, 0], "piqa": [0, 0], "winogrande": [1, 0]})

    def test_the_same_bytes_on_any_number_of_ranks(self):
        answers = []
        for ranks in (1, 2, 3):
            answer, _ = self.run_tasks(ALL, ranks=ranks)
            with open(self.path("samples"), "rb") as f:
                answers.append((answer, f.read()))
        self.assertEqual(answers[0], answers[1])
        self.assertEqual(answers[0], answers[2])

    def test_prepared_rows_ask_the_same(self):
        """In the form of llm-foundry: queries, choices, and the number of the right one."""
        os.mkdir(self.path("prepared"))
        for task in SIX.split(","):
            with open(self.path("prepared", task + ".jsonl"), "w", encoding="utf-8") as f:
                for row in read(os.path.join(ROWS, task + ".jsonl")):
                    asked = requests(task, row)
                    context, choices = asked[0][0], [c[1:] for _, c in asked]
                    line = {"query": context[:-len("\nAnswer:")], "choices": choices, "gold": 0}
                    if task == "boolq":
                        line["query"] = "Passage: " + line["query"]
                    if task == "piqa":
                        line["query"] += "\n"
                    if task == "hellaswag":
                        line["query"] = context
                    if task == "winogrande":
                        line = {"context_options": [c for c, _ in asked], "continuation": choices[0], "gold": 1}
                    f.write(json.dumps(line) + "\n")
        _, raw = self.run_tasks(SIX)
        _, prepared = self.run_tasks(SIX, self.path("prepared"))
        for task in SIX.split(","):
            self.assertEqual([line["ll"] for line in raw[task]], [line["ll"] for line in prepared[task]], task)

    def test_tasks_and_texts_at_once(self):
        text = ["--text", helpers.HELDOUT, "--length", 64, "--sequences", 3]
        both, found = self.run_tasks("piqa,boolq", ROWS, "--limit", 1, *text, ranks=2)
        alone, _ = self.run_tasks("piqa,boolq", ROWS, "--limit", 1)
        self.assertEqual(both["tasks"], alone["tasks"])
        self.assertEqual(both["tasks"]["piqa"]["n"], 1)
        self.assertEqual(len(found["perplexity"]), 3)
        self.assertEqual(both["perplexity"], helpers.succeed("evaluate", helpers.MODEL, *text, "--json").json()["perplexity"])

    def test_what_cannot_be_asked_is_refused(self):
        os.mkdir(self.path("rows"))
        good = read(os.path.join(ROWS, "arc_easy.jsonl"))[0]
        cases = [
            (dict(good, answerKey="D"), 'line 2: key "answerKey" is none of the labels of its choices'),
            ({"question": "?"}, 'line 2 has no key "choices.text"'),
            (dict(good, choices={"text": [], "label": []}), 'key "choices.text": expected a list of 1 to'),
            (dict(good, choices={"text": [1], "label": ["A"]}), 'key "choices.text": expected a string, found'),
            (dict(good, question=None), 'key "question": expected a string, found null'),
            ([good], "line 2: expected a JSON object"),
        ]
        for row, message in cases:
            with open(self.path("rows", "arc_easy.jsonl"), "w", encoding="utf-8") as f:
                f.write(json.dumps(good) + "\n" + json.dumps(row) + "\n")
            result = helpers.run("evaluate", helpers.MODEL, "--tasks", "arc_easy", "--task-dir", self.path("rows"))
            self.assertEqual(result.code, helpers.BAD_DATA, result)
            self.assertIn(message, result.stderr)
        with open(self.path("rows", "hellaswag.jsonl"), "w", encoding="utf-8") as f:
            f.write(json.dumps(dict(read(os.path.join(ROWS, "hellaswag.jsonl"))[0], label="")) + "\n")
        for words, code, message in (
                (["--tasks", "hellaswag"], helpers.BAD_DATA, "a split without answers cannot be scored"),
                (["--tasks", "piqa"], helpers.NO_INPUT, "has no file piqa.jsonl or piqa.jsonl.gz"),
                (["--tasks", "mmlu"], helpers.USAGE, "expected some of arc_easy, arc_challenge"),
                (["--tasks", "arc_easy,arc_easy"], helpers.USAGE, "arc_easy is there twice")):
            result = helpers.run("evaluate", helpers.MODEL, *words, "--task-dir", self.path("rows"))
            self.assertEqual(result.code, code, result)
            self.assertIn(message, result.stderr)


class Reference(helpers.Test):
    """Every log-likelihood, every decision and the figures of lm-evaluation-harness 0.4.9.1."""
    run_tasks = Tasks.run_tasks

    def check(self, model, name, suffix, bos, without=()):
        folder = helpers.shared("data", "reference", "lm-eval" + suffix, name)
        rows = helpers.shared("data", "reference", "raw" + suffix)
        with open(os.path.join(folder, "results.json"), encoding="utf-8") as f:
            results = json.load(f)
        ties = {(t["task"], t["doc"], t["metric"]) for t in results.get("near_ties", []) if t["gap"] < 1e-3}
        answer, found = self.run_tasks(",".join(results["tasks"]), rows, "--task-bos", bos, model=model, ranks=2, timeout=1200)
        for task, figures in results["tasks"].items():
            for line, expected in zip(found[task], read(os.path.join(folder, task + ".jsonl"))):
                if (task, expected["doc"]) in without:
                    continue
                for key, value in expected.items():
                    message = (task, expected["doc"], key)
                    if key == "ll":
                        self.assertEqual(len(line["ll"]), len(value), message)
                        self.assertLess(np.abs(np.array(line["ll"]) - value).max(), 1e-3, message)
                    elif key == "loglikelihood":
                        self.assertLess(abs(line[key] / value - 1), 1e-6, message)
                    elif (task, expected["doc"], key.replace("pred_", "")) not in ties:
                        self.assertEqual(line[key], value, message)
            if any(task == left_out for left_out, _ in without):
                continue
            for key, value in answer["tasks"][task].items():
                if key in figures and "perplexity" not in key:
                    self.assertAlmostEqual(value, figures[key], delta=1e-6 if "bits" in key else 1e-12, msg=(task, key))
                elif key in figures:
                    self.assertLess(abs(value / figures[key] - 1), 1e-5, (task, key))
        if "average_of_six" in results:
            self.assertEqual(answer["average_of_six_as_printed"], results["average_of_six_as_printed_by_the_SNRQ_code"])
        return sum(len(lines) for lines in found.values())

    def test_stories3m_without_bos(self):
        model = helpers.shared("data", "models", "stories3M")
        count = [self.check(model, "stories3M", suffix, "off") for suffix in ("", "-corner", "-more")]
        self.assertEqual(count, [360, 29, 87])

    def test_stories3m_with_bos(self):
        """Where there is no context, 0.4.9.1 scores a second BOS, which later versions do not have."""
        model = helpers.shared("data", "models", "stories3M")
        for suffix in ("", "-corner"):
            self.check(model, "stories3M-bos", suffix, "tokenizer")
        self.check(model, "stories3M-bos", "-more", "tokenizer", without={("lambada_openai", 40)})


if __name__ == "__main__":
    helpers.main()
