"""Draws the pictures of docs/speed.md, each for a light and a dark page."""

import html
import io
import re

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import FuncFormatter, NullFormatter  # noqa: E402
from metg import seconds  # noqa: E402

THEMES = {
    "light": {"text": "#1f2328", "grid": "#d1d9e0", "ours": ["#0b5fd7", "#1a9fb8", "#7a3fd0", "#0a7d4b"],
              "theirs": ["#b34700", "#6e7781", "#a6126e", "#8a6d00", "#57606a", "#c2410c", "#4d7c0f", "#9f1239", "#475569"]},
    "dark": {"text": "#e6edf3", "grid": "#3d444d", "ours": ["#58a6ff", "#56d4dd", "#bc8cff", "#3fb950"],
             "theirs": ["#f0883e", "#8b949e", "#ff7bac", "#d29922", "#adbac7", "#ffa198", "#a3be5c", "#f47067", "#94a3b8"]},
}
MARKS = "osD^vPX*h<>"


def setting(theme):
    colours = THEMES[theme]
    return {
        "svg.fonttype": "none", "svg.hashsalt": "rankpool", "font.family": "sans-serif", "font.size": 11,
        "text.color": colours["text"], "axes.labelcolor": colours["text"], "axes.edgecolor": colours["grid"],
        "xtick.color": colours["text"], "ytick.color": colours["text"], "grid.color": colours["grid"],
        "axes.titlecolor": colours["text"], "legend.frameon": False, "axes.spines.top": False, "axes.spines.right": False,
    }


def save(figure, file, title, description, machine):
    figure.text(0.01, 0.012, machine, fontsize=8.5, ha="left", va="bottom")
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    svg = text.getvalue()
    start = svg.index("<svg")
    end = svg.index(">", start)
    words = f' role="img">\n <title>{html.escape(title)}</title>\n <desc>{html.escape(description)}</desc>'
    svg = svg[:end] + words + svg[end + 1 :]
    file.write_text(smaller(svg))


def smaller(svg):
    """Without what no reader sees: half the size."""
    svg = re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r" *font-family: [^;\"]*;?| transform=\"rotate\(-0 [^\"]*\"", "", svg)
    svg = re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found.group()):.2f}", svg)
    classes = {}
    svg = re.sub(r'style="([^"]*)"', lambda found: f'class="c{classes.setdefault(found.group(1), len(classes))}"', svg)
    rules = "".join(f".c{number}{{{rule}}}\n" for rule, number in classes.items())
    svg = svg.replace('<style type="text/css">', '<style type="text/css">\ntext{font-family: system-ui, sans-serif}\n' + rules, 1)
    # The names of groups; those of marks and clipped areas are used.
    svg = re.sub(r'<g id="[a-z_.A-Z0-9]*">', "<g>", svg)
    svg = re.sub(r"\s+(?=[LMCz\"])(?![^<]*</)", " ", svg)
    lines = (line.strip() for line in svg.splitlines())
    return "\n".join(line for line in lines if line) + "\n"


def styles(names, colours):
    """Colour, mark, line width and order for each name: rankpool's are thick and on top."""
    ours, theirs, found = list(colours["ours"]), list(colours["theirs"]), {}
    for mark, (name, label) in zip(MARKS, names.items()):
        mine = label.startswith("rankpool")
        source = ours if mine else theirs
        found[name] = {"color": source.pop(0), "marker": mark, "linewidth": 2.6 if mine else 1.3, "markersize": 4.5,
                       "zorder": 4 if mine else 3, "label": label}
    return found


def curves(folder, name, panels, labels, title, description, machine):
    """Efficiency over the length of jobs. `panels`: a heading, and for each contender its points."""
    for theme, colours in THEMES.items():
        with plt.rc_context(setting(theme)):
            size = (4.9 * len(panels) if len(panels) > 1 else 7, 4.6)
            figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
            style = styles(labels, colours)
            for axis, (heading, lines) in zip(axes[0], panels):
                for contender, points in lines.items():
                    axis.plot([x for x, _ in points], [100 * min(y, 1.0) for _, y in points], **style[contender])
                for share in (50, 90):
                    axis.axhline(share, color=colours["text"], linewidth=0.8, linestyle=":", zorder=2)
                axis.set_xscale("log")
                axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: seconds(x)))
                axis.xaxis.set_minor_formatter(NullFormatter())
                axis.set_ylim(0, 102)
                axis.grid(True, axis="both", linewidth=0.5)
                axis.set_title(heading, fontsize=11)
                axis.set_xlabel("length of a job")
            axes[0][0].set_ylabel("efficiency of two workers, %")
            handles = {line.get_label(): line for axis in axes[0] for line in axis.get_lines() if line.get_label() in labels.values()}
            ordered = [label for label in labels.values() if label in handles]
            columns = 4 if len(panels) > 1 else 3
            lines = [handles[label] for label in ordered]
            figure.legend(lines, ordered, loc="lower center", ncol=columns, fontsize=9, bbox_to_anchor=(0.5, 0.045))
            figure.tight_layout(rect=(0, 0.075 + 0.042 * -(-len(ordered) // columns), 1, 1))
            save(figure, folder / f"{name}-{theme}.svg", title, description, machine)


def bars(folder, name, panels, columns, title, description, machine):
    """Horizontal bars, the shortest on top. `panels`: a heading, a formatter, whether the axis is logarithmic, a reference or None, and
    pairs of a label and a value."""
    most, lines = max(len(rows) for *_, rows in panels), -(-len(panels) // columns)
    for theme, colours in THEMES.items():
        with plt.rc_context(setting(theme)):
            size = ((5.2 if columns > 1 else 7.4) * columns, 0.4 + lines * (0.7 + 0.27 * most))
            figure, axes = plt.subplots(lines, columns, figsize=size, squeeze=False)
            for axis, (heading, shown, is_log, reference, rows) in zip(axes.flat, panels):
                rows = sorted(rows, key=lambda row: row[1], reverse=True)
                tints = [colours["ours"][0] if label.startswith("rankpool") else colours["theirs"][1] for label, _ in rows]
                drawn = axis.barh([label for label, _ in rows], [value for _, value in rows], color=tints, height=0.7)
                axis.bar_label(drawn, [shown(value) for _, value in rows], padding=3, fontsize=9, color=colours["text"])
                largest, smallest = max(value for _, value in rows), min(value for _, value in rows)
                if is_log:
                    axis.set_xscale("log")
                    axis.set_xlim(smallest / 2, largest * 6)
                else:
                    axis.set_xlim(0, max(largest, reference or 0) * 1.3)
                if reference:
                    axis.axvline(reference, color=colours["text"], linewidth=1, linestyle="--")
                axis.set_title(heading, fontsize=11)
                axis.xaxis.set_major_formatter(NullFormatter())
                axis.xaxis.set_minor_formatter(NullFormatter())
                axis.tick_params(axis="x", which="both", length=0)
                axis.tick_params(axis="y", length=0, labelsize=9.5)
                axis.spines["bottom"].set_visible(False)
                axis.margins(y=0.01)
            figure.tight_layout(rect=(0, 0.3 / figure.get_figheight(), 1, 1))
            save(figure, folder / f"{name}-{theme}.svg", title, description, machine)
