"""Models on ONNX Runtime: conversion, tokenisation, the decode engine and the encoders."""
