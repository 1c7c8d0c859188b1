// How the search orders what it finds: as usual, but headings come first, the glossary's among them.
var Scorer = {
  objNameMatch: 11, objPartialMatch: 6, objPrio: {0: 15, 1: 5, 2: -5}, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,
  score: ([, , , , score, , kind]) => kind === "title" ? score + 15 : score,
}
