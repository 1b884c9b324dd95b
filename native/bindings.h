// The parts of the Python module that have files of their own.
#pragma once
#include <pybind11/pybind11.h>

void bind_ring(pybind11::module_& m);
void bind_coding(pybind11::module_& m);
