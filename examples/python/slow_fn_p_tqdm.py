"""slow_fn as written for p_tqdm: from p_tqdm import p_map, p_imap, p_umap"""

from slow_fn import arguments, report

from rankpool.compat.p_tqdm import p_imap, p_map, p_umap

if __name__ == "__main__":
    function, jobs = arguments()
    results = p_map(function, jobs)
    assert list(p_imap(function, jobs[:5])) == results[:5]
    assert sorted(p_umap(function, jobs[:5])) == sorted(results[:5])
    report(results)
