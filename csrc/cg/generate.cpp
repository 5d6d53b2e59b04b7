// Writes the compile-time Clebsch-Gordan tables: one struct Cg<l1, l2, l3> a triple that obeys the triangle rule.
//
//     generate L_MAX OUTPUT
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iomanip>

#include "cg/coupling.h"

namespace {

template <class Field>
void write_column(std::ofstream& file, const nf::Coupling& c, const char* type, const char* name, const Field& field) {
  file << "  static constexpr " << type << " " << name << "[] = {";
  for (size_t t = 0; t < c.terms.size(); ++t) file << (t ? ", " : "") << field(c.terms[t]);
  file << "};\n";
}

void write(std::ofstream& file, const nf::Coupling& c) {
  using Term = nf::Coupling::Term;
  file << "template <> struct Cg<" << c.l1 << ", " << c.l2 << ", " << c.l3 << "> {\n"
       << "  static constexpr int count = " << c.terms.size() << ";\n";
  write_column(file, c, "int", "m1", [](const Term& t) { return t.m1; });
  write_column(file, c, "int", "m2", [](const Term& t) { return t.m2; });
  write_column(file, c, "int", "m3", [](const Term& t) { return t.m3; });
  write_column(file, c, "double", "value", [](const Term& t) { return t.value; });
  file << "};\n";
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("usage: generate L_MAX OUTPUT\n", stderr);
    return 2;
  }
  const int l_max = std::atoi(argv[1]);
  std::ofstream file(argv[2]);
  file << std::setprecision(17)
       << "// Written by csrc/cg/generate.cpp: real Clebsch-Gordan coefficients, terms sorted by (m1, m3, m2).\n"
          "#pragma once\n"
          "namespace nf {\n"
          "inline constexpr int kMaxL = "
       << l_max << ";\ntemplate <int l1, int l2, int l3> struct Cg { static constexpr int count = 0; };\n";
  for (int l1 = 0; l1 <= l_max; ++l1)
    for (int l2 = 0; l2 <= l_max; ++l2)
      for (int l3 = std::abs(l1 - l2); l3 <= std::min(l1 + l2, l_max); ++l3) write(file, nf::coupling(l1, l2, l3));
  file << "}  // namespace nf\n";
  file.close();
  return file.good() ? 0 : 1;
}
