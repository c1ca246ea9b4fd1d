use super::*;

fn lines(is_log: bool, points: Vec<(f64, f64)>) -> Lines {
    let axis = |name| Axis { label: name, unit: Unit::Seconds, is_log };
    Lines {
        caption: Caption::new("Lines", "some"),
        x: axis("x".into()),
        y: axis("y".into()),
        series: vec![Series { name: "a".into(), ink: Ink::Main, points, is_filled: true, is_dashed: false }],
        references: vec![Reference::new("limit", 2.0)],
    }
}

fn histogram(columns: &[(f64, f64, u64)]) -> Histogram {
    Histogram {
        caption: Caption::new("Histogram", "some"),
        x: Axis::new("time", Unit::Seconds).log(),
        y: Axis::new("jobs", Unit::Count),
        columns: columns.iter().map(|(from, to, count)| Column { from: *from, to: *to, count: *count }).collect(),
        references: vec![Reference::new("median", 1.5)],
    }
}

fn bars(values: &[f64]) -> Bars {
    Bars {
        caption: Caption::new("Bars <of> \"it\"", "some & more"),
        unit: Unit::Seconds,
        bars: values
            .iter()
            .map(|value| Bar::new("<b>\u{1b}[31m & a very long label ".repeat(4), *value).with_note("2×"))
            .collect(),
        reference: Some(Reference::new("serial", 4.0)),
    }
}

/// What every chart has: one root with labels, no bare text of others, as many opened as closed elements.
#[track_caller]
fn check(svg: &str) {
    assert!(svg.starts_with("<svg class=\"chart\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 "), "{svg}");
    assert!(
        svg.contains("role=\"img\" aria-label=\"") && svg.contains("<title>") && svg.trim_end().ends_with("</svg>")
    );
    assert_eq!((svg.matches("<svg").count(), svg.matches("</svg>").count()), (1, 1));
    assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    assert!(!svg.contains('\u{1b}') && !svg.contains("<b>") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
}

#[test]
fn charts_have_labels_for_screen_readers_and_no_markup_of_others() {
    let svg = bars(&[1.0, 4.0]).to_svg();
    check(&svg);
    assert!(svg.contains("<title>Bars &lt;of&gt; &quot;it&quot;</title><desc>some &amp; more</desc>"), "{svg}");
    assert!(svg.contains("1 s, 2×") && svg.contains("serial: 4 s"), "{svg}");
    assert!(svg.contains("<style>") && !bars(&[1.0]).to_inline().contains("<style>"));
}

#[test]
fn values_that_cannot_be_shown_do_no_harm() {
    let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, 1e-320, 1e308, 5.0];
    check(&bars(&odd).to_svg());
    check(&bars(&[]).to_svg());
    for is_log in [false, true] {
        let pairs = odd.iter().flat_map(|x| odd.iter().map(move |y| (*x, *y)));
        check(&lines(is_log, pairs.collect()).to_svg());
        for points in [vec![], vec![(1.0, 1.0)], vec![(1.0, 1.0), (1.0, 1.0)], vec![(1e-9, 1e-9), (1e12, 1e12)]] {
            check(&lines(is_log, points).to_svg());
        }
    }
    for columns in [&[][..], &[(0.0, 0.0, 0)], &[(1.0, 1.1, 5)], &[(1e-9, 1e9, u64::MAX)], &[(f64::NAN, 1.0, 1)]] {
        check(&histogram(columns).to_svg());
    }
    let mark = |from, to, row| Mark { row, from, to, ink: Ink::Failed, strength: 7.0, height: -1.0 };
    let marks = odd.iter().flat_map(|from| odd.iter().map(move |to| mark(*from, *to, 1))).chain([mark(0.0, 1.0, 99)]);
    let gantt = Gantt {
        caption: Caption::default(),
        x: Axis::new("time", Unit::Count),
        range: (0.0, f64::NAN),
        rows: vec!["one".into(), "two".into()],
        marks: marks.collect(),
    };
    check(&gantt.to_svg());
}

#[test]
fn a_mark_of_a_gantt_chart_is_where_its_time_is() {
    let mark = |row, from, to| Mark { row, from, to, ink: Ink::Main, strength: 1.0, height: 1.0 };
    let gantt = Gantt {
        caption: Caption::new("Gantt", ""),
        x: Axis::new("time", Unit::Count),
        range: (0.0, 10.0),
        rows: vec!["a".into(), "b".into()],
        marks: vec![mark(0, 0.0, 5.0), mark(1, 5.0, 10.0), mark(1, 2.0, 2.0)],
    };
    let svg = gantt.to_svg();
    let number = |rect: &str, name: &str| -> f64 {
        let value = rect.split(&format!(" {name}=\"")).nth(1).and_then(|rest| rest.split('"').next());
        value.and_then(|value| value.parse().ok()).expect("a number")
    };
    let rects: Vec<_> =
        svg.split("<rect").skip(1).map(|rect| (number(rect, "x"), number(rect, "width"), number(rect, "y"))).collect();
    let [(x0, width0, y0), (x1, width1, y1), (_, width2, _)] = rects[..] else { panic!("{svg}") };
    assert!((x0 + width0 - x1).abs() <= 2.0 && (width0 - width1).abs() <= 2.0 && y1 > y0, "{rects:?}");
    assert!(width2 >= 1.0, "it can be seen");
}

#[test]
fn every_colour_has_another_on_a_dark_page() {
    let style = style();
    assert!(style.contains("@media(prefers-color-scheme:dark)"));
    for (_, light, dark) in INKS {
        assert_ne!(light, dark);
        let (red, green, blue) = light;
        assert_eq!(
            style.matches(&format!("=\"#{red:02X}{green:02X}{blue:02X}\"")).count(),
            2,
            "unique, as fill and stroke"
        );
    }
    let svg = lines(false, vec![(0.0, 0.0), (1.0, 2.0)]).to_inline() + &histogram(&[(1.0, 2.0, 3)]).to_inline();
    for part in svg.split("=\"#").skip(1) {
        assert!(style.contains(&format!("=\"#{}\"", &part[..6])), "#{} is no colour of ours", &part[..6]);
    }
}

#[test]
fn logarithmic_axes_have_labels_whatever_their_range_is() {
    for unit in [Unit::Seconds, Unit::Bytes, Unit::Count] {
        for range in [1e-9..1e9, 1.0..1.6, 0.0123..0.0456, 3.0..4000.0, 1e3..1e13] {
            let points = svg::log_points(&range, unit, 12);
            assert!((2..=14).contains(&points.len()), "{unit:?} {range:?}: {points:?}");
            assert!(points.windows(2).all(|pair| pair[0] < pair[1]), "{unit:?} {range:?}: {points:?}");
        }
    }
}
